import json
from argparse import ArgumentParser
from typing import Any
from uuid import UUID

from django.core.management.base import BaseCommand, CommandError

from aitbc.accounts.keys import revoke_key
from aitbc.core.errors import DomainError


class Command(BaseCommand):
    help = "Revoke an API key at once."
    requires_system_checks: list[str] = []  # they import the whole web, and say nothing about this

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("id", type=UUID)
        parser.add_argument("--json", action="store_true", help="print one JSON object")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            key = revoke_key(key_id=options["id"])
        except DomainError as error:
            raise CommandError(error.message) from error
        answer = {"id": str(key.id), "revoked_at": str(key.revoked_at)}
        self.stdout.write(json.dumps(answer) if options["json"] else f"{key} is revoked")
