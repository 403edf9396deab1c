import json
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from aitbc.accounts.keys import SCOPES, create_key
from aitbc.accounts.models import User
from aitbc.core.errors import DomainError


class Command(BaseCommand):
    help = f"Create an API key and show it this once. Scopes: {', '.join(SCOPES)}."
    requires_system_checks: list[str] = []  # they import the whole web, and say nothing about this

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--user", required=True, help="e-mail address")
        parser.add_argument("--scopes", required=True, help="comma-separated")
        parser.add_argument("--name", default="command line")
        parser.add_argument("--json", action="store_true", help="print one JSON object")

    def handle(self, *args: Any, **options: Any) -> None:
        user = User.objects.filter(email__iexact=options["user"]).first()
        if user is None:
            raise CommandError(f"there is no user {options['user']}")
        scopes = [scope.strip() for scope in options["scopes"].split(",") if scope.strip()]
        try:
            key, token = create_key(user=user, name=options["name"], scopes=scopes)
        except DomainError as error:
            raise CommandError(error.message) from error
        answer = {"id": str(key.id), "key": token, "scopes": key.scopes}
        self.stdout.write(json.dumps(answer) if options["json"] else f"{token}\n(id {key.id}; shown this once)")
