"""Every row of every table as one comparable value: a refusal proves by it that nothing changed."""

from collections.abc import Iterator
from contextlib import contextmanager

from django.db import connection

# Bookkeeping that reads also touch: when a key was last used.
_IGNORED = ("accounts_apikey", "django_migrations")


def snapshot(*without: str) -> dict[str, tuple[int, str]]:
    """Table -> (rows, digest of all rows), but for the tables in `without`."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public' ORDER BY 1")
        tables = [name for (name,) in cursor.fetchall() if name not in (*_IGNORED, *without)]
        parts = " UNION ALL ".join(
            f"SELECT '{name}', count(*), coalesce(md5(string_agg(t::text, ' ' ORDER BY t::text)), '') FROM \"{name}\" t"
            for name in tables
        )
        cursor.execute(parts)
        return {name: (rows, digest) for name, rows, digest in cursor.fetchall()}


@contextmanager
def nothing_changes() -> Iterator[None]:
    before = snapshot()
    yield
    assert snapshot() == before
