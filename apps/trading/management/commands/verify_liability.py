import json
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from aitbc.core import money
from apps.trading import liability_tree


class Command(BaseCommand):
    help = (
        "Check, offline, your proof from GET /v1/liabilities/proof; compare the root with the published one."
    )
    requires_system_checks: list[str] = []  # they import the whole web, and say nothing about this

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("file", type=Path, metavar="FILE")

    def handle(self, *, file: Path, **options: Any) -> None:
        try:
            document = json.loads(file.read_text())
            amount = liability_tree.verify(document)
        except (OSError, ValueError, AttributeError, TypeError) as error:
            raise CommandError(f"NOT a valid proof: {error}") from error
        owed, total = (money.show(int(units), 18) for units in (amount, document["total"]))
        self.stdout.write(
            f"valid: {owed} AIT of {total} are owed to {document['user']}\nroot {document['root']}"
        )
