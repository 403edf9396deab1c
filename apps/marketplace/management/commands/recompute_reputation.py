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
        if not options["verify"]:
            done = {"noted": call("reputation_collect", 1_000_000, True), "changed": call("reputation_rebuild")}
            return done, f"deals and disputes noted: {done['noted']}, scores put right: {done['changed']}"
        if found := db.rows("SELECT who::text, problem FROM reputation_verify() ORDER BY 1, 2"):
            raise CommandError("\n".join(f"{who}: {problem}" for who, problem in found))
        scores = db.value("SELECT count(*) FROM marketplace_reputation")
        return {"ok": True, "scores": scores}, f"sound: {scores} scores are what their events make"
