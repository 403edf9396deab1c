from argparse import ArgumentParser
from typing import Any
from uuid import UUID

from aitbc.core.answers import AnswerCommand
from apps.trading.services import reversals


class Command(AnswerCommand):
    help = "Correct a posted transfer by a new one that moves its amount back. Repeatable: it is done once."

    def add_arguments(self, parser: ArgumentParser) -> None:
        super().add_arguments(parser)
        parser.add_argument("transfer", type=UUID, help="id of the transfer")
        parser.add_argument("--reason", required=True, help="why; kept in the event that tells of it")
        parser.add_argument("--dry-run", action="store_true", help="say what would move, and move nothing")

    def answer(self, **options: Any) -> tuple[Any, str]:
        item = reversals.reversal(options["transfer"])
        if not options["dry_run"]:
            reversals.reverse(options["transfer"], reason=options["reason"])
        done = {"id": str(item.id), "debit": item.debit, "credit": item.credit, "amount": str(item.amount)}
        done["dry_run"] = options["dry_run"]
        verb = "would move" if options["dry_run"] else "moved"
        return done, f"{verb} {item.amount} from account {item.debit} back to {item.credit} as {item.id}"
