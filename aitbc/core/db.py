"""The database, spoken to directly where the ORM would cost too much or say too little."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from itertools import count
from typing import Any

import psycopg
from django.db import OperationalError, connection, connections, transaction
from psycopg.adapt import PyFormat, Transformer
from psycopg.pq import ExecStatus
from psycopg.pq.abc import PGresult

from aitbc.core.errors import Unavailable


class _Statements:
    """The prepared statements of one connection, run by libpq's one blocking call.

    psycopg's cursor polls the socket from Python and looks its converters up anew for each execution.
    """

    def __init__(self, raw: psycopg.Connection[Any]) -> None:
        self.pg = raw.pgconn
        self.transformer = Transformer(raw)
        self.names: dict[tuple[str, tuple[int, ...]], bytes] = {}
        self.numbers = count()

    def run(self, sql: str, params: Sequence[Any]) -> list[tuple[Any, ...]]:
        try:
            return self._run(sql, params)
        except psycopg.errors.InvalidSqlStatementName:
            # psycopg drops all prepared statements of the connection after a rollback, ours with its own.
            self.names.clear()
            return self._run(sql, params)

    def _run(self, sql: str, params: Sequence[Any]) -> list[tuple[Any, ...]]:
        values = self.transformer.dump_sequence(params, [PyFormat.AUTO] * len(params))
        types = self.transformer.types or ()
        name = self.names.get((sql, types)) or self._prepare(sql, types)
        result = self._checked(
            self.pg.exec_prepared(name, values, self.transformer.formats)  # type: ignore[arg-type]  # NULL is None
        )
        if not result.nfields:
            return []
        self.transformer.set_pgresult(result)
        return self.transformer.load_rows(0, result.ntuples, tuple)

    def _prepare(self, sql: str, types: tuple[int, ...]) -> bytes:
        name = f"aitbc_{next(self.numbers)}".encode()
        self._checked(self.pg.prepare(name, _numbered(sql), types))
        self.names[sql, types] = name
        return name

    def _checked(self, result: PGresult) -> PGresult:
        if result.status not in (ExecStatus.TUPLES_OK, ExecStatus.COMMAND_OK):
            raise psycopg.errors.error_from_result(result)
        return result


def _statements_of(database: Any, raw: psycopg.Connection[Any]) -> _Statements:
    """Kept by what owns the connection: they refer to it, so any other keeper would keep it alive."""
    kept: _Statements | None = getattr(database, "aitbc_statements", None)
    if kept is None or kept.pg is not raw.pgconn:
        kept = database.aitbc_statements = _Statements(raw)
    return kept


@cache
def _numbered(sql: str) -> bytes:
    """PostgreSQL's `$1, $2` for psycopg's `%s`."""
    first, *rest = sql.replace("%%", "\0").split("%s")
    return (first + "".join(f"${i}{part}" for i, part in enumerate(rest, 1))).replace("\0", "%").encode()


def rows(sql: str, params: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
    """Run one statement with server-side binding and a prepared plan; outside a transaction it is one.

    Django's own cursor interpolates on the client and wraps each call several times: this is the
    hot path of jobs and ledger, several times cheaper, with the same error mapping.
    """
    database = connections["default"]
    database.ensure_connection()
    raw: psycopg.Connection[Any] = database.connection
    with database.wrap_database_errors:
        if raw.autocommit:
            return _statements_of(database, raw).run(sql, params)
        # psycopg begins the transaction with its first statement.
        cursor = psycopg.Cursor(raw)
        cursor.execute(sql, params, prepare=True)
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
        raise transaction.TransactionManagementError("this call has outside effects: no transaction may be open")


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
            raise Unavailable("database.slow", "this read took too long and was stopped; ask for less") from error
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
    """Close every connection of `alias` of this process, after folding its write-ahead log in."""
    database = connections[alias]
    getattr(database, "close_everywhere", database.close)()
