import sys
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from apps.trading.services import export


class Command(BaseCommand):
    help = "Write the whole ledger as a journal of another program; check it with `bean-check FILE`."
    requires_system_checks: list[str] = []  # they import the whole web, and say nothing about this

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--format", choices=["beancount"], default="beancount")
        parser.add_argument("--output", type=Path, help="a new file; standard output without it")

    def handle(self, **options: Any) -> None:
        path: Path | None = options["output"]
        if path is None:
            sys.stdout.writelines(f"{line}\n" for line in export.beancount())
            return
        try:
            with path.open("x", encoding="utf-8") as file:
                file.writelines(f"{line}\n" for line in export.beancount())
        except OSError as error:
            raise CommandError(f"cannot write {path}: {error.strerror}") from error
        self.stderr.write(f"wrote {path}; check it with: bean-check {path}")
