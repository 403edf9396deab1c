import json
import sys
from argparse import ArgumentParser
from typing import Any

from django.contrib.auth.password_validation import validate_password
from django.core.exceptions import ValidationError
from django.core.management.base import BaseCommand, CommandError
from django.core.validators import validate_email
from django.db import IntegrityError, transaction

from aitbc.accounts.models import Role, User


class Command(BaseCommand):
    help = "Create a user; the password is read from standard input, never from the command line."
    requires_system_checks: list[str] = []  # they import the whole web, and say nothing about this

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--email", required=True)
        parser.add_argument("--role", choices=Role.values, default=Role.CLIENT)
        parser.add_argument("--name", default="")
        parser.add_argument("--password-stdin", action="store_true", help="read the password from standard input")
        parser.add_argument("--if-missing", action="store_true", help="print the existing user instead of failing")
        parser.add_argument("--json", action="store_true", help="print one JSON object")

    def handle(self, *args: Any, **options: Any) -> None:
        user = self._existing(options) or self._create(options)
        answer = {"id": str(user.id), "email": user.email, "role": user.role}
        self.stdout.write(json.dumps(answer) if options["json"] else f"{user.email} ({user.role}) {user.id}")

    def _existing(self, options: dict[str, Any]) -> User | None:
        if not options["if_missing"]:
            return None
        return User.objects.filter(email__iexact=options["email"]).first()

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
