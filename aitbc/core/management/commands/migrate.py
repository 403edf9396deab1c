"""`migrate` without `--database` brings every database up to date: the owner's, then the chain's file."""

import os
from contextlib import suppress
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import CommandError, CommandParser
from django.core.management.commands.migrate import Command as DjangoMigrate
from django.db import connections

from aitbc.core import ports
from aitbc.core.sqlcipher import keys


class Command(DjangoMigrate):
    def add_arguments(self, parser: CommandParser) -> None:
        super().add_arguments(parser)
        parser.set_defaults(database=None)
        for action in parser._actions:
            if action.dest == "database":
                action.choices = [*settings.DATABASES]

    def get_check_kwargs(self, options: dict[str, Any]) -> Any:
        return {**super().get_check_kwargs(options), "databases": [options["database"] or "owner"]}

    def execute(self, *args: Any, **options: Any) -> Any:
        """In development a new chain database has its key made with it."""
        new = not os.path.exists(connections["chain"].settings_dict["NAME"])
        if new and settings.DEVELOPMENT and settings.DB_ENCRYPTION_ENABLED:
            with suppress(FileExistsError):
                keys.generate(Path(settings.DB_ENCRYPTION_KEY_PATH))
        try:
            return super().execute(*args, **options)
        except ImproperlyConfigured as error:
            raise CommandError(str(error)) from error

    def handle(self, *args: Any, **options: Any) -> None:
        wanted = options.pop("database")
        for alias in [wanted] if wanted else ["owner", "chain"]:
            super().handle(*args, **options, database=alias)
            if alias == "owner":
                seed()
                grant_application_role()


def seed() -> None:
    """What the code cannot run without; existing rows stay as they are. Apps subscribe to `seed`."""
    for fill in ports.subscribers("seed"):
        fill("owner")


def grant_application_role() -> None:
    """The application's role may use every table and function, except what a migration took from it.

    Run after each migration, because what is new belongs to its owner alone. The rights that the role
    has on a table are a comment on it when they are fewer than all: `app: SELECT`. Nobody else may
    execute our functions: those of the ledger run with the owner's rights.
    """
    with connections["default"].cursor() as cursor:
        cursor.execute("SELECT current_user")
        (role,) = cursor.fetchone()
    with connections["owner"].cursor() as cursor:
        cursor.execute("SELECT current_user = %s", (role,))
        if cursor.fetchone() != (True,):  # one role for both, in development only: it may do everything
            cursor.execute("SELECT set_config('aitbc.role', %s, false)", (role,))
            cursor.execute(_GRANTS)


_GRANTS = """
DO $$
DECLARE t record; rights text; role text := current_setting('aitbc.role');
BEGIN
  EXECUTE format('GRANT USAGE ON SCHEMA public TO %I', role);
  FOR t IN SELECT c.oid, c.relname, obj_description(c.oid) AS note FROM pg_class c
           WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p', 'v') LOOP
    rights := coalesce(substring(t.note FROM 'app: ([A-Z, ]+)'), 'SELECT, INSERT, UPDATE, DELETE');
    EXECUTE format('REVOKE ALL ON %I FROM %I', t.relname, role);
    EXECUTE format('GRANT %s ON %I TO %I', rights, t.relname, role);
  END LOOP;
  EXECUTE format('GRANT USAGE, SELECT ON ALL SEQUENCES IN SCHEMA public TO %I', role);
  ALTER DEFAULT PRIVILEGES REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC;
  REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA public FROM PUBLIC;
  EXECUTE format('GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA public TO %I', role);
END $$
"""
