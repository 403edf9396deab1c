import json
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from aitbc.accounts.models import AuditEvent
from aitbc.core import db


class Command(BaseCommand):
    help = "Count the audit log; --verify recomputes its chain as well, exit 0 only when it holds."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--verify", action="store_true", help="name the first row that is not as it was")
        parser.add_argument("--json", action="store_true", dest="as_json", help="print one JSON object")

    def handle(self, *, verify: bool, as_json: bool, **options: Any) -> None:
        bad = db.row("SELECT number, problem FROM audit_verify()") if verify else None
        found = {"ok": bad is None, "verified": verify, "events": AuditEvent.objects.count(), "bad": bad}
        self.stdout.write(json.dumps(found) if as_json else f"{found['events']} events")
        if bad:
            raise CommandError(f"the audit log is NOT sound: row {bad[0]}: {bad[1]}")
