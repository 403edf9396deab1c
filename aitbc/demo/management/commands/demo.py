"""`manage.py demo`: the main job end to end on real parts, with a report."""

import time
from argparse import ArgumentParser
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from aitbc.demo.report import summary
from aitbc.demo.stage import FULL, SHORT
from aitbc.demo.steps import perform
from aitbc.stack import StackError
from aitbc.stack.paths import current


class Command(BaseCommand):
    help = "Show the platform at work: start it, buy and sell compute, settle, verify; exit 0 only if all held."
    requires_system_checks = []  # the stores are not running yet
    requires_migrations_checks = False

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--short", action="store_true", help="the same steps with fewer jobs")
        parser.add_argument("--keep", action="store_true", help="leave the platform running in the end")

    def handle(self, *, short: bool, keep: bool, **options: Any) -> None:
        if not (settings.DEVELOPMENT and settings.CHAIN_EMBEDDED):
            raise CommandError("the demonstration makes money and kills processes: not outside development")
        begun, report_path = time.monotonic(), current().root / "demo" / "report.json"

        def tell(line: str) -> None:
            self.stdout.write(f"{time.monotonic() - begun:7.1f}  {line}")
            self.stdout.flush()

        try:
            report = perform(size=SHORT if short else FULL, keep=keep, tell=tell)
        except KeyboardInterrupt:
            raise CommandError(f"interrupted; all is stopped; see {report_path}", returncode=130) from None
        except StackError as error:
            raise CommandError(str(error)) from error
        for line in summary(report):
            self.stdout.write(line)
        if not report.ok:
            raise CommandError(f"not all of it held; see {report_path}")
