from argparse import ArgumentParser
from typing import Any

from django.core.management.base import CommandError
from django.db import transaction

from aitbc.accounts import parameters
from aitbc.core.answers import AnswerCommand


class Command(AnswerCommand):
    help = "Change governed parameters, all of them or none; each change is kept in their history."

    def add_arguments(self, parser: ArgumentParser) -> None:
        super().add_arguments(parser)
        parser.add_argument("changes", nargs="+", metavar="NAME=VALUE")

    @transaction.atomic
    def answer(self, **options: Any) -> tuple[Any, str]:
        wanted = dict(_parse(text) for text in options["changes"])
        before = {name: parameters.get(name) for name in wanted}
        for name, value in wanted.items():
            parameters.change(name=name, value=value, by=None)
        lines = [f"{name}: {before[name]} -> {value}" for name, value in wanted.items()]
        return {"before": before, "now": wanted}, "\n".join(lines)


def _parse(text: str) -> tuple[str, int]:
    name, equals, value = text.partition("=")
    if not equals or not value.isdecimal():
        raise CommandError(f"{text!r} is not NAME=VALUE with a whole number")
    return name, int(value)
