"""`manage.py stack up|down|status|destroy`: the embedded PostgreSQL, Redis and development chain."""

import json
from argparse import ArgumentParser
from dataclasses import asdict
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from aitbc import stack


class Command(BaseCommand):
    help = "Start, stop or show the embedded servers; their data stays under var/ until `destroy`."
    requires_system_checks = ()  # checks may ask the very servers this command starts
    requires_migrations_checks = False

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("action", choices=("up", "down", "status", "destroy"))
        parser.add_argument("--only", default=",".join(stack.SERVICES), help="comma-separated services")
        parser.add_argument("--json", action="store_true", dest="as_json", help="print one JSON object")

    def handle(self, *, action: str, only: str, as_json: bool, **options: Any) -> None:
        services = [name.strip() for name in only.split(",") if name.strip()]
        try:
            if action == "up":
                stack.up(services)
            elif action == "down":
                stack.down(services)
            elif action == "destroy":
                return stack.destroy()
            found = stack.status(services)
        except stack.StackError as error:
            raise CommandError(str(error)) from error
        self.stdout.write(_as_json(found) if as_json else _as_text(found))
        if action == "status" and not all(service.healthy for service in found):
            raise SystemExit(3)  # as service scripts do for one that does not run


def _as_json(found: list[stack.ServiceStatus]) -> str:
    return json.dumps({"services": [asdict(service) for service in found]})


def _as_text(found: list[stack.ServiceStatus]) -> str:
    rows = [f"{s.name:<10} {_state(s):<10} {s.pid or '-':>8}  {s.address}" for s in found]
    return "\n".join(rows + [f"note: {note}" for service in found for note in service.notes])


def _state(service: stack.ServiceStatus) -> str:
    if service.healthy:
        return "healthy"
    return f"unhealthy: {service.detail}" if service.running else "stopped"
