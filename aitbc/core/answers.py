"""Commands that give one answer, as text or as JSON, and say in a line what the domain refuses."""

import json
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from aitbc.core.errors import DomainError


class AnswerCommand(BaseCommand):
    requires_system_checks = ()  # they import the whole web, and say nothing about these commands

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--json", action="store_true", dest="as_json", help="print one JSON object")

    def handle(self, *, as_json: bool, **options: Any) -> None:
        try:
            found, text = self.answer(**options)
        except DomainError as error:
            raise CommandError(str(error)) from error
        self.stdout.write(json.dumps(found) if as_json else text)

    def answer(self, **options: Any) -> tuple[Any, str]:
        """What `--json` prints, and the same as text."""
        raise NotImplementedError
