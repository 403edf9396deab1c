"""The database, spoken to directly where the ORM would cost too much or say too little."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import psycopg
from django.db import OperationalError, connection, connections, transaction

from aitbc.core.errors import Unavailable


def rows(sql: str, params: Sequence[Any] = (), *, binary: bool = False) -> list[tuple[Any, ...]]:
    """Run one statement with server-side binding and a prepared plan; outside a transaction it is one.

    Django's own cursor interpolates on the client and wraps each call several times: this is the
    hot path of jobs and ledger, three times cheaper, with the same error mapping.
    """
    connection.ensure_connection()
    raw: psycopg.Connection[Any] = connection.connection
    with connection.wrap_database_errors:
        cursor = psycopg.Cursor(raw)
        cursor.execute(sql, params, prepare=True, binary=binary)
        # `description` would build an object per column only to be tested for truth.
        return cursor.fetchall() if cursor.pgresult and cursor.pgresult.nfields else []


def row(sql: str, params: Sequence[Any] = ()) -> tuple[Any, ...] | None:
    found = rows(sql, params)
    return found[0] if found else None


def value(sql: str, params: Sequence[Any] = ()) -> Any:
    """The first column of the only row."""
    return rows(sql, params)[0][0]


def outside_transaction(using: str = "default") -> None:
    """Refuse to go on inside a transaction: network and files never wait on row locks."""
    blocks = connections[using].atomic_blocks
    # What a test case wraps around itself is Django's to know; its own `durable` asks the same.
    if blocks and not blocks[-1]._from_testcase:  # type: ignore[attr-defined]  # missing in the stubs
        raise transaction.TransactionManagementError(
            "this call has outside effects: no transaction may be open"
        )


def inside_transaction() -> None:
    """For helpers whose locks mean nothing without the caller's transaction."""
    if not connection.in_atomic_block:
        raise transaction.TransactionManagementError("this call needs the caller's transaction")


@contextmanager
def bounded(milliseconds: int) -> Iterator[None]:
    """A public read may not occupy the database: a statement past the limit ends as Unavailable."""
    try:
        with transaction.atomic():
            before = value("SELECT current_setting('statement_timeout')")
            rows("SELECT set_config('statement_timeout', %s, true)", (str(milliseconds),))
            yield
            rows("SELECT set_config('statement_timeout', %s, true)", (before,))  # for an outer transaction
    except OperationalError as error:
        if isinstance(error.__cause__, psycopg.errors.QueryCanceled):
            raise Unavailable(
                "database.slow", "this read took too long and was stopped; ask for less"
            ) from error
        raise


@contextmanager
def advisory_lock(name: str) -> Iterator[bool]:
    """A session-level PostgreSQL lock on a connection of its own; yields whether it was free.

    The lock dies with the connection, so a killed holder frees it at once. Whoever must survive a
    paused holder adds a fencing epoch of his own.
    """
    settings = connections["default"].settings_dict
    params = connections["default"].get_connection_params()
    params.pop("cursor_factory", None)
    params.pop("context", None)
    try:
        dedicated = psycopg.connect(
            **{k: v for k, v in params.items() if k not in ("prepare_threshold", "server_side_binding")},
            autocommit=True,
        )
    except psycopg.OperationalError as error:
        raise Unavailable("database.unavailable", f"cannot reach database {settings['NAME']}") from error
    with dedicated:
        held = dedicated.execute("SELECT pg_try_advisory_lock(hashtextextended(%s, 0))", (name,)).fetchone()
        yield bool(held and held[0])


def shutdown_db(alias: str = "chain") -> None:
    """Close every connection of `alias` of this thread, after folding its write-ahead log in."""
    database = connections[alias]
    if database.vendor == "sqlite" and database.connection is not None:
        database.cursor().execute("PRAGMA wal_checkpoint(TRUNCATE)")
    database.close()
