import json
from argparse import ArgumentParser
from typing import Any
from uuid import UUID

from django.core.management.base import BaseCommand, CommandError

from apps.gpu.services import reliability


class Command(BaseCommand):
    help = "Recompute reliability scores from the signed heartbeats; with --verify exit 0 only if all is as stored."
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--verify", action="store_true", help="compare with what is stored, and store nothing")
        parser.add_argument("--miner", type=UUID, help="this miner only")
        parser.add_argument("--json", action="store_true", help="print one JSON object")

    def handle(self, *args: Any, **options: Any) -> None:
        if not options["verify"]:
            reliability.refresh()
        found = list(reliability.findings(miner=options["miner"]))
        wrong = [f"miner {each['miner']}: {each['fault']}" for each in found if each["fault"]]
        report = {"ok": not wrong, "miners": len(found), "findings": found}
        self.stdout.write(json.dumps(report) if options["json"] else f"{len(found)} miners, {len(wrong)} at fault")
        if wrong:
            raise CommandError("; ".join(wrong))
