import json
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from apps.trading import liability_tree


class Command(BaseCommand):
    help = "Check offline your answer of GET /v1/liabilities/proof; compare its root with the published one."
    requires_system_checks: list[str] = []  # they import the whole web, and say nothing about this

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("file", type=Path, metavar="FILE")

    def handle(self, *, file: Path, **options: Any) -> None:
        try:
            document = json.loads(file.read_text())
            owed = liability_tree.verify(document)
        except (OSError, ValueError, AttributeError, TypeError) as error:
            raise CommandError(f"NOT a valid proof: {error}") from error
        self.stdout.write(f"valid: {owed} units of {document['total']} are owed, root {document['root']}")
