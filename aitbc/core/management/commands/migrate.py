"""`migrate` without `--database` brings every database up to date: the owner's role, then the chain's file."""

from argparse import ArgumentParser
from typing import Any

from django.conf import settings
from django.core.management.commands.migrate import Command as DjangoMigrate
from django.db import connections

from aitbc.core import ports


class Command(DjangoMigrate):
    def add_arguments(self, parser: ArgumentParser) -> None:
        super().add_arguments(parser)
        parser.set_defaults(database=None)
        for action in parser._actions:
            if action.dest == "database":
                action.choices = [*settings.DATABASES]

    def get_check_kwargs(self, options: dict[str, Any]) -> dict[str, Any]:
        kwargs: dict[str, Any] = super().get_check_kwargs(options)
        return kwargs | {"databases": [options["database"] or "owner"]}

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
    """The application's role may use every table, except where a migration took a right away.

    Run after each migration, because a new table belongs to its owner alone. The rights taken from
    the role are a comment on the table: `app: SELECT`.
    """
    with connections["owner"].cursor() as cursor:
        cursor.execute("SELECT 1 FROM pg_roles WHERE rolname = 'aitbc_app'")
        if cursor.fetchone() is None:
            return
        cursor.execute(_GRANTS)


_GRANTS = """
DO $$
DECLARE t record; rights text;
BEGIN
  GRANT USAGE ON SCHEMA public TO aitbc_app;
  FOR t IN SELECT c.oid, c.relname, obj_description(c.oid) AS note FROM pg_class c
           WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p') LOOP
    rights := coalesce(substring(t.note FROM 'app: ([A-Z, ]+)'), 'SELECT, INSERT, UPDATE, DELETE');
    EXECUTE format('REVOKE ALL ON %I FROM aitbc_app', t.relname);
    EXECUTE format('GRANT %s ON %I TO aitbc_app', rights, t.relname);
  END LOOP;
  GRANT USAGE, SELECT ON ALL SEQUENCES IN SCHEMA public TO aitbc_app;
  GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA public TO aitbc_app;
END $$
"""
