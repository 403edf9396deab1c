import sys
from argparse import ArgumentParser
from typing import Any

from django.contrib.auth.password_validation import validate_password
from django.core.exceptions import ValidationError
from django.core.management.base import CommandError
from django.core.validators import validate_email
from django.db import IntegrityError, transaction

from aitbc.accounts.models import Role, User
from aitbc.core.answers import AnswerCommand


class Command(AnswerCommand):
    help = "Create a user; the password is read from standard input, never from the command line."

    def add_arguments(self, parser: ArgumentParser) -> None:
        super().add_arguments(parser)
        parser.add_argument("--email", required=True)
        parser.add_argument("--role", choices=Role.values, default=Role.CLIENT)
        parser.add_argument("--name", default="")
        parser.add_argument("--password-stdin", action="store_true", help="read the password from standard input")
        parser.add_argument("--if-missing", action="store_true", help="print the existing user instead of failing")

    def answer(self, **options: Any) -> tuple[Any, str]:
        known = User.objects.filter(email__iexact=options["email"]).first() if options["if_missing"] else None
        user = known or self._create(options)
        found = {"id": str(user.id), "email": user.email, "role": user.role}
        return found, f"{user.email} ({user.role}) {user.id}"

    def _create(self, options: dict[str, Any]) -> User:
        password = sys.stdin.readline().rstrip("\n") if options["password_stdin"] else None
        operator = options["role"] == Role.OPERATOR
        try:
            validate_email(options["email"])
            if password is not None:
                validate_password(password, User(email=options["email"]))
            with transaction.atomic():
                return User.objects.create_user(
                    options["email"],
                    password,
                    role=options["role"],
                    name=options["name"],
                    is_staff=operator,
                    is_superuser=operator,
                )
        except ValidationError as error:
            raise CommandError(" ".join(error.messages)) from error
        except IntegrityError as error:
            raise CommandError(f"{options['email']} exists already (--if-missing accepts that)") from error
