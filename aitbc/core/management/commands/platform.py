"""`manage.py platform up|down|status`: the whole platform in the background."""

import json
from argparse import ArgumentParser
from dataclasses import asdict
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from aitbc.stack import StackError, platform


class Command(BaseCommand):
    help = "Start, stop or show the platform: embedded servers, web, workers, chain, one miner."
    requires_system_checks = ()  # checks may ask the very servers this command starts
    requires_migrations_checks = False

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("action", choices=("up", "down", "status"))
        parser.add_argument("--without", default="", help="comma-separated programs to leave out, e.g. miner")
        parser.add_argument("--json", action="store_true", dest="as_json", help="print one JSON object")

    def handle(self, *, action: str, without: str, as_json: bool, **options: Any) -> None:
        try:
            running = self._do(action, without=[name for name in without.split(",") if name], quiet=as_json)
        except StackError as error:
            raise CommandError(str(error)) from error
        if as_json:
            self.stdout.write(json.dumps(asdict(running) if running else {"processes": {}}))
        elif running is None:
            self.stdout.write("the platform is down")
        else:
            self._describe(running)

    def _do(self, action: str, *, without: list[str], quiet: bool) -> platform.Running | None:
        if action == "up":
            return platform.up(without=without, tell=lambda line: None if quiet else self.stdout.write(line))
        if action == "down":
            platform.down()
        return platform.status()

    def _describe(self, running: platform.Running) -> None:
        for name, pid in running.processes.items():
            self.stdout.write(f"{name:<11} {pid:>8}")
        self.stdout.write(f"\nplatform   {running.url}")
        self.stdout.write(f"admin      {running.admin.url}")
        self.stdout.write(f"login      {running.admin.email}  {running.admin.password}")
