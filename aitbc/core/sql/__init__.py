"""SQL functions live in .sql files beside the app that owns them; a migration runs each file whole."""

from pathlib import Path

from django.db import migrations


def run_file(path: Path) -> migrations.RunSQL:
    """A migration operation that (re)creates the functions of one file; removing them is the table's drop."""
    # A file is its newest state: an early migration runs it before the columns that later ones add.
    sql = f"SET LOCAL check_function_bodies = off;\n{path.read_text()}"
    return migrations.RunSQL(sql, reverse_sql=migrations.RunSQL.noop)


def restrict(table: str, rights: str) -> migrations.RunSQL:
    """Say which rights the application's role has on `table`; `migrate` grants exactly these."""
    return migrations.RunSQL(f"COMMENT ON TABLE {table} IS 'app: {rights}'", migrations.RunSQL.noop)
