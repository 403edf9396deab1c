from argparse import ArgumentParser
from typing import Any

from django.core.management.base import CommandError

from aitbc.accounts.keys import SCOPES, create_key
from aitbc.accounts.models import User
from aitbc.core.answers import AnswerCommand


class Command(AnswerCommand):
    help = f"Create an API key and show it this once. Scopes: {', '.join(SCOPES)}."

    def add_arguments(self, parser: ArgumentParser) -> None:
        super().add_arguments(parser)
        parser.add_argument("--user", required=True, help="e-mail address")
        parser.add_argument("--scopes", required=True, help="comma-separated")
        parser.add_argument("--name", default="command line")

    def answer(self, **options: Any) -> tuple[Any, str]:
        user = User.objects.filter(email__iexact=options["user"]).first()
        if user is None:
            raise CommandError(f"there is no user {options['user']}")
        scopes = [scope.strip() for scope in options["scopes"].split(",") if scope.strip()]
        key, token = create_key(user=user, name=options["name"], scopes=scopes)
        found = {"id": str(key.id), "key": token, "scopes": key.scopes}
        return found, f"{token}\n(id {key.id}; shown this once)"
