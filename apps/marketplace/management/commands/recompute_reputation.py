from argparse import ArgumentParser
from typing import Any

from django.core.management.base import CommandError

from aitbc.core import db
from aitbc.core.answers import AnswerCommand
from apps.trading.services.escrow import call


class Command(AnswerCommand):
    help = "Make every score anew from its events; with --verify only say what differs, exit 0 when nothing does."

    def add_arguments(self, parser: ArgumentParser) -> None:
        super().add_arguments(parser)
        parser.add_argument("--verify", action="store_true")

    def answer(self, **options: Any) -> tuple[Any, str]:
        done = {"scores": db.value("SELECT count(*) FROM marketplace_reputation")}
        if not options["verify"]:
            done |= {"noted": call("reputation_collect", 1_000_000, True), "changed": call("reputation_rebuild")}
        elif found := db.rows("SELECT who::text, problem FROM reputation_verify() ORDER BY 1, 2"):
            raise CommandError("\n".join(f"{who}: {problem}" for who, problem in found))
        return done, f"sound: {done}" if options["verify"] else f"recomputed: {done}"
