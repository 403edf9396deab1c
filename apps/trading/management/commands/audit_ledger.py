import datetime as dt
import json
import time
from argparse import ArgumentParser
from dataclasses import asdict
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.utils.dateparse import parse_datetime, parse_duration

from aitbc.core.clock import database_now
from apps.trading.services import audit


def _moment(text: str) -> dt.datetime:
    if text and (duration := parse_duration(text)) is not None:
        return database_now() - duration
    moment = parse_datetime(text)
    if moment is None or moment.tzinfo is None:
        raise ValueError(f"{text} is neither a time with its zone nor a duration")
    return moment


class Command(BaseCommand):
    help = "Prove the ledger from its entries up; exit 0 only when every rule holds."
    requires_system_checks: list[str] = []  # they import the whole web, and say nothing about this

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--json", action="store_true", help="print one JSON object")
        parser.add_argument(
            "--since",
            type=_moment,
            help="only what is newer than the last checkpoint before this time: RFC 3339, or how long ago by "
            "ISO 8601, such as PT2H",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        start = time.perf_counter()
        findings = audit.audit(since=options["since"])
        report = {
            "ok": not findings,
            "rules": len(audit.RULES),
            "entries": audit.size(),
            "seconds": round(time.perf_counter() - start, 3),
            "findings": [asdict(finding) for finding in findings],
        }
        if options["json"]:
            self.stdout.write(json.dumps(report))
        else:
            self._print(report)
        if findings:
            raise CommandError("the ledger is NOT sound: " + ", ".join(f.rule for f in findings))

    def _print(self, report: dict[str, Any]) -> None:
        for finding in report["findings"]:
            self.stdout.write(f"BROKEN {finding['rule']}: {finding['count']}, for example {finding['example']}")
        if report["ok"]:
            self.stdout.write(
                f"sound: {report['rules']} rules over {report['entries']} entries in {report['seconds']} s"
            )
