"""What ledger tests share: accounts made to order, items, and a picture of all that must not change."""

import time
from uuid import UUID

from django.db import connection, connections

from aitbc.accounts.models import User
from aitbc.core import db
from aitbc.core.ids import uuid7
from apps.trading.services import journal, ledger
from apps.trading.services.ledger import Item

TABLES = (
    *("trading_account", "trading_transfer", "trading_entry", "trading_payment", "trading_dispute"),
    *("trading_stream", "trading_stream_deposit", "trading_stream_payee"),
)


def user(name: str) -> User:
    return User.objects.create_user(f"{name}-{uuid7().hex}@example.com")


def account(amount: int = 0, *, asset: str = "AIT", owner: UUID | None = None) -> int:
    """An available account of a fresh user, credited from outside."""
    mine = ledger.account_id(owner=owner or user("owner").pk, kind="available", asset=asset)
    if amount:
        ledger.apply_all([transfer(outside(asset), mine, amount)])
    return mine


def outside(asset: str = "AIT") -> int:
    return ledger.account_id(owner=None, kind="external", chain="test", asset=asset)


def transfer(debit: int | None, credit: int | None, amount: object, **fields: object) -> Item:
    return _item("transfer", debit=debit, credit=credit, amount=amount, **fields)


def hold(debit: int | None, amount: object, **fields: object) -> Item:
    return _item("hold", debit=debit, amount=amount, **fields)


def post(hold: UUID | None, credit: int | None, amount: object, **fields: object) -> Item:
    return _item("post", hold=hold, credit=credit, amount=amount, **fields)


def void(hold: UUID | None, **fields: object) -> Item:
    return _item("void", hold=hold, **fields)


def _item(action: str, **fields: object) -> Item:
    return Item(**{"id": uuid7(), "action": action, "kind": f"test.{action}", **fields})


def opened(debit: int, amount: int) -> UUID:
    """The id of a new hold."""
    item = hold(debit, amount)
    ledger.apply_all([item])
    return item.id


def sealed(most: int = 1000) -> int | None:
    """Seal all there is, once no older transaction runs, not even another test's in its own database."""
    complete = """SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint
                       > (SELECT max(xact) FROM journal_lines(0, 9223372036854775807))"""
    deadline = time.monotonic() + 120
    while not db.value(complete):
        assert time.monotonic() < deadline, "an older transaction does not end"
        time.sleep(0.02)
    return journal.seal(most)


def time_passes(seconds: int) -> None:
    """Every hold's time-out comes nearer; only the database's clock counts, and it cannot be turned."""
    with connections["owner"].cursor() as cursor:
        cursor.execute("SET session_replication_role = replica")
        cursor.execute(
            """UPDATE trading_transfer SET created_at = created_at - x, expires_at = expires_at - x
                 FROM (SELECT %s * interval '1 second' AS x) s WHERE expires_at IS NOT NULL""",
            [seconds],
        )
        cursor.execute("UPDATE trading_holdtimer SET due = due - %s * interval '1 second'", [seconds])
        cursor.execute("SET session_replication_role = origin")


def balance(account: int) -> tuple[int, int]:
    """(posted, held)"""
    posted, held = db.rows("SELECT posted, held FROM trading_account WHERE id = %s", (account,))[0]
    return int(posted), int(held)


def books() -> list[tuple[object, ...]]:
    """Every row of the ledger: equal before and after whatever was refused."""
    found: list[tuple[object, ...]] = []
    with connection.cursor() as cursor:
        for table in TABLES:
            cursor.execute(f"SELECT '{table}', t::text FROM {table} t ORDER BY t::text")
            found += cursor.fetchall()
    return found
