"""Rule 10: the application's role executes the ledger; it cannot write entries or switch rules off."""

import pytest
from django.db import DatabaseError, connection, transaction

from aitbc.accounts import parameters
from aitbc.accounts.models import AuditEvent
from aitbc.core import db
from aitbc.core.testing.cast import AIT
from aitbc.core.testing.snapshot import snapshot
from apps.trading.models import Account, JournalBlock
from apps.trading.services import journal
from apps.trading.services.audit import audit
from apps.trading.tests.books import sealed


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE trading_account SET posted = posted + 1",
        "UPDATE trading_entry SET amount = amount",
        "INSERT INTO trading_entry SELECT * FROM trading_entry",
        "DELETE FROM trading_transfer",
        "UPDATE trading_payment SET released = held",
        "TRUNCATE trading_entry",
        "ALTER TABLE trading_entry DISABLE TRIGGER ALL",
        "SET session_replication_role = replica",
        "DROP FUNCTION ledger_apply",
        "CREATE TABLE mine (id int)",
        "UPDATE pg_authid SET rolsuper = true",
    ],
)
def test_the_applications_role_cannot(alice, statement):
    before = snapshot()

    with pytest.raises(DatabaseError), transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(statement)

    assert snapshot() == before
    assert audit() == []


def test_the_ledgers_function_is_what_moves_money(alice):
    """Alice was funded through it, by this same role."""
    assert db.value("SELECT current_user") != db.value(
        "SELECT tableowner FROM pg_tables WHERE tablename = 'trading_entry'"
    )
    assert Account.objects.get(owner=alice.id, kind="available").posted == AIT


def test_the_anchored_head_covers_the_audit_log(committed_db):
    """Each settlement anchors the journal's head; a line of the journal holds each audit event's."""
    parameters.change(name="fee_bps", value=260, by=None)
    assert sealed() is not None
    newest = AuditEvent.objects.first()
    lines = [line for (line,) in db.rows("SELECT line FROM journal_lines(0, 9223372036854775807) WHERE part = 3")]

    assert newest.action == "parameter.changed"
    assert f"audit|{newest.number}|{newest.head[2:]}" in lines
    assert JournalBlock.objects.first().head == journal.head()
    assert audit() == []
