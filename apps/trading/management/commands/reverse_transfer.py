import json
from argparse import ArgumentParser
from typing import Any
from uuid import UUID

from django.core.management.base import BaseCommand, CommandError

from aitbc.core.errors import DomainError
from apps.trading.services import reversals


class Command(BaseCommand):
    help = "Correct a posted transfer by a new one that moves its amount back. Repeatable: it is done once."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("transfer", type=UUID, help="id of the transfer")
        parser.add_argument("--reason", required=True, help="why; kept in the event that tells of it")
        parser.add_argument("--dry-run", action="store_true", help="say what would move, and move nothing")
        parser.add_argument("--json", action="store_true", help="print one JSON object")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            item = reversals.reversal(options["transfer"])
            if not options["dry_run"]:
                reversals.reverse(options["transfer"], reason=options["reason"])
        except DomainError as error:
            raise CommandError(f"{error.code}: {error.message}") from error
        done = {"id": str(item.id), "debit": item.debit, "credit": item.credit, "amount": str(item.amount)}
        done["dry_run"] = options["dry_run"]
        verb = "would move" if options["dry_run"] else "moved"
        self.stdout.write(
            json.dumps(done)
            if options["json"]
            else f"{verb} {item.amount} from account {item.debit} back to {item.credit} as {item.id}"
        )
