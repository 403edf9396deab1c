"""The hash chain: every committed fact is in exactly one block, whoever commits when."""

import hashlib
import threading

import pytest
from django.db import IntegrityError, ProgrammingError, connection, connections, transaction

from aitbc.core import db
from apps.trading.models import JournalBlock
from apps.trading.services import journal, ledger
from apps.trading.services.audit import audit
from apps.trading.tests.books import account, opened, sealed, transfer, void


@pytest.fixture(autouse=True)
def _committed(committed_db):
    pass


def sealed_lines() -> int:
    return sum(JournalBlock.objects.values_list("lines", flat=True))


def all_lines() -> int:
    return db.value("SELECT count(*)::int FROM journal_lines(0, 9223372036854775807)")


def test_a_block_holds_what_was_committed_since_the_one_before():
    first = account(10)
    assert sealed() == 1
    assert journal.seal() is None
    ledger.apply_all([transfer(first, account(), 3), void(opened(first, 2))])
    assert sealed() == 2

    one, two = JournalBlock.objects.order_by("number")
    assert (one.lines, two.lines) == (4, 6)
    # A transfer and two entries; the same, a hold, and its void; and in each a line of the audit log.
    assert one.upto < two.upto
    assert journal.head() == two.head
    assert audit() == []


def test_a_backlog_is_sealed_in_blocks_of_whole_transactions():
    giver, taker = account(10), account()
    ledger.apply_all([transfer(giver, taker, 1), transfer(giver, taker, 1), transfer(giver, taker, 1)])
    ledger.apply_all([transfer(giver, taker, 1)])
    assert sealed(most=2) == 1  # the owners, the funding, and the three at once
    assert sealed(most=2) == 2
    assert journal.seal(most=2) is None

    assert list(JournalBlock.objects.order_by("number").values_list("lines", flat=True)) == [14, 3]
    assert audit() == []


def test_the_head_is_the_hash_that_its_parts_say():
    account(10)
    sealed()
    block = JournalBlock.objects.get()
    lines = [line for (line,) in db.rows("SELECT line FROM journal_lines(0, 9223372036854775807) ORDER BY part, key")]
    digest = hashlib.sha256("\n".join(lines).encode()).digest()
    parts = b"aitbc.journal" + (1).to_bytes(8, "big") + b"" + block.upto.to_bytes(8, "big") + digest
    assert block.digest == "0x" + digest.hex()
    assert block.head == "0x" + hashlib.sha256(parts).hexdigest()
    kind, _, *facts = lines[0].split("|")
    assert (kind, facts[0], facts[3]) == ("transfer", "test.transfer", "10")


def test_lines_do_not_depend_on_the_sessions_settings():
    account(10)
    sealed()
    with transaction.atomic():
        db.rows("SET LOCAL timezone = 'Asia/Tokyo'")
        db.rows("SET LOCAL datestyle = 'German'")
        db.rows("SET LOCAL extra_float_digits = 0")
        assert audit() == []


def test_what_an_open_transaction_writes_waits_and_is_not_missed(in_threads):
    """Its transaction id is lower than that of rows committed meanwhile: nothing above it may be sealed."""
    (mine, theirs), (other, another) = (account(10), account()), (account(10), account())
    assert sealed() == 1
    written, go_on = threading.Event(), threading.Event()

    def slow():
        with transaction.atomic():
            ledger.apply_all([transfer(mine, theirs, 1)])
            written.set()
            go_on.wait(20)

    def fast():
        written.wait(20)
        ledger.apply_all([transfer(other, another, 2)])
        during = journal.seal()
        go_on.set()
        return during

    assert in_threads(lambda i: (slow, fast)[i](), 2) == [None, None]
    assert sealed() == 2
    assert sealed_lines() == all_lines()
    assert audit() == []


def test_sealers_and_writers_at_once_miss_and_repeat_nothing(in_threads):
    giver, taker = account(1000), account()

    def work(i):
        for _ in range(25):
            if i % 2:
                journal.seal()
            else:
                ledger.apply_all([transfer(giver, taker, 1)])

    in_threads(work, 6)
    sealed()
    numbers = list(JournalBlock.objects.order_by("number").values_list("number", flat=True))
    assert numbers == list(range(1, len(numbers) + 1))
    assert sealed_lines() == all_lines()
    assert audit() == []


@pytest.mark.parametrize("sql", ["UPDATE trading_journalblock SET lines = 0", "DELETE FROM trading_journalblock"])
def test_a_block_stays(sql):
    account(1)
    sealed()
    with pytest.raises(IntegrityError, match="stay"), connections["owner"].cursor() as cursor:
        cursor.execute(sql)
    with pytest.raises(ProgrammingError, match="permission denied"):
        connection.cursor().execute(sql)
    assert audit() == []
