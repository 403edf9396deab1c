"""The `db_` commands: one function each. Their secrets lie in files, never in arguments (protocols 35)."""

import json
from argparse import ArgumentParser
from collections.abc import Callable
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import BaseCommand, CommandError
from django.db import connections
from sqlcipher3 import dbapi2

OPTIONS: dict[str, dict[str, Any]] = {
    "--dry-run": {"action": "store_true", "help": "change nothing, only check"},
    "--backup": {"default": "", "metavar": "FILE", "help": "a new file for an encrypted copy"},
}


def of(act: Callable[..., dict[str, Any]], *names: str) -> type[BaseCommand]:
    """A command that runs `act` on the chain database and its key file, whatever is wrong with either."""

    class Command(BaseCommand):
        help = act.__doc__ or ""
        requires_system_checks = ()
        requires_migrations_checks = False

        def add_arguments(self, parser: ArgumentParser) -> None:
            parser.add_argument("--json", action="store_true", dest="as_json", help="print one JSON object")
            for name in names:
                parser.add_argument(name, **OPTIONS[name])

        def handle(self, *, as_json: bool, **options: Any) -> None:
            given = {name: options[name] for name in ("dry_run", "backup") if name in options}
            # A check asks for what the settings want; the others are there to change it.
            plain = "backup" in given and not settings.DB_ENCRYPTION_ENABLED
            key_file = None if plain else Path(settings.DB_ENCRYPTION_KEY_PATH)
            try:
                found = act(Path(connections["chain"].settings_dict["NAME"]), key_file, **given)
            except (ImproperlyConfigured, OSError, dbapi2.Error) as error:
                raise CommandError(str(error)) from error
            lines = (f"{name}: {value}" for name, value in found.items())
            self.stdout.write(json.dumps(found) if as_json else "\n".join(lines))
            if problems := found.get("problems"):
                raise CommandError("; ".join(problems))

    return Command
