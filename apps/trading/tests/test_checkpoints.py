"""Balances as sealed at a block: equal to the fold of what was sealed, whatever comes later."""

from random import Random

import pytest
from django.db import IntegrityError, ProgrammingError, connections, transaction

from aitbc.core import db
from aitbc.core.errors import NotFound
from apps.trading.models import Balance, Checkpoint
from apps.trading.services import journal, ledger
from apps.trading.services.audit import audit
from apps.trading.tests.books import account, balance, hold, opened, post, sealed, transfer, void

pytestmark = pytest.mark.usefixtures("committed_db")


def test_a_balance_at_a_block_does_not_move_afterwards():
    alice, bob = account(100), account()
    first = sealed()
    ledger.apply_all([transfer(alice, bob, 30)])
    second = sealed()
    ledger.apply_all([transfer(alice, bob, 30)])

    def past(one):
        return [journal.balance_at(account=one, block=block) for block in (first, second)]

    assert (past(alice), past(bob)) == ([100, 70], [0, 30])
    assert journal.checkpoint() == second
    sealed()
    assert (past(alice), past(bob)) == ([100, 70], [0, 30])


def test_an_unknown_block_is_refused():
    with pytest.raises(NotFound) as error:
        journal.balance_at(account=account(1), block=1)
    assert error.value.code == "ledger.block_unknown"


def test_a_checkpoint_needs_a_new_block():
    assert journal.checkpoint() is None
    account(1)
    sealed()
    assert (journal.checkpoint(), journal.checkpoint()) == (1, None)


def test_a_checkpoint_holds_only_who_moved():
    alice, bob = account(10), account(10)
    sealed()
    journal.checkpoint()
    ledger.apply_all([hold(alice, 3)])
    sealed()
    journal.checkpoint()
    rows = Balance.objects.filter(block_id=2).values_list("account_id", "posted", "held")
    assert list(rows) == [(alice, 10, 3)]
    assert Balance.objects.filter(account_id=bob).count() == 1


@pytest.mark.parametrize("seed", range(5))
def test_checkpoints_agree_with_the_balances_of_their_moment(seed):
    random = Random(seed)
    accounts = [account(50) for _ in range(4)]
    holds: list = []
    then: dict[int, list[tuple[int, int]]] = {}
    for _ in range(6):
        for _ in range(random.randint(1, 8)):
            source, target = random.sample(accounts, 2)
            match random.choice(("transfer", "hold", "post", "void")):
                case "transfer":
                    ledger.apply([transfer(source, target, random.randint(1, 20))])
                case "hold":
                    held = hold(source, random.randint(1, 5))
                    holds += [held.id] if ledger.apply([held]) == ["ok"] else []
                case "post" if holds:
                    done = holds.pop(random.randrange(len(holds)))
                    ledger.apply([post(done, target, 1, link=1), post(done, source, 1, link=2)])
                case "void" if holds:
                    ledger.apply([void(holds.pop(random.randrange(len(holds))))])
        if (block := sealed()) is not None:
            then[block] = [balance(one) for one in accounts]
            if random.random() < 0.5:
                journal.checkpoint()
                rows = Balance.objects.order_by("block_id")
                latest = {row.account_id: (int(row.posted), int(row.held)) for row in rows}
                assert [latest[one] for one in accounts] == then[block]
    for block, balances in then.items():
        found = [journal.balance_at(account=one, block=block) for one in accounts]
        assert found == [posted for posted, _ in balances], (seed, block)
    assert audit() == []
    since = db.value("SELECT now()")
    assert audit(since=since) == []


def test_checkpoints_stay_and_only_the_function_writes_them():
    opened(account(5), 1)
    sealed()
    journal.checkpoint()
    for sql in ("UPDATE trading_balance SET posted = 0", "DELETE FROM trading_checkpoint"):
        with pytest.raises(IntegrityError), transaction.atomic(using="owner"):
            connections["owner"].cursor().execute(sql)
        with pytest.raises(ProgrammingError, match="permission denied"):
            db.rows(sql)
    assert (Checkpoint.objects.count(), Balance.objects.filter(posted=0).count()) == (1, 0)
