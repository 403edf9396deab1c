import json
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import transaction

from aitbc.accounts import parameters
from aitbc.core.errors import DomainError


class Command(BaseCommand):
    help = "Change governed parameters, all of them or none; each change is kept in their history."
    requires_system_checks: list[str] = []  # they import the whole web, and say nothing about this

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("changes", nargs="+", metavar="NAME=VALUE")
        parser.add_argument("--json", action="store_true", help="print one JSON object")

    def handle(self, *args: Any, **options: Any) -> None:
        wanted = dict(_parse(text) for text in options["changes"])
        try:
            with transaction.atomic():
                before = {name: parameters.get(name) for name in wanted}
                for name, value in wanted.items():
                    parameters.change(name=name, value=value, by=None)
        except DomainError as error:
            raise CommandError(f"{error.message} ({error.code})") from error
        if options["json"]:
            self.stdout.write(json.dumps({"before": before, "now": wanted}))
        else:
            for name, value in wanted.items():
                self.stdout.write(f"{name}: {before[name]} -> {value}")


def _parse(text: str) -> tuple[str, int]:
    name, equals, value = text.partition("=")
    if not equals or not value.isdecimal():
        raise CommandError(f"{text!r} is not NAME=VALUE with a whole number")
    return name, int(value)
