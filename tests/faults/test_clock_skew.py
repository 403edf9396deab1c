"""A node whose clock is ten minutes wrong, either way, releases and expires nothing too early or too late.

What money, leases and deliveries wait for is judged by the database's clock; each test sets a wait of five
minutes on such a node, and finds it whole.
"""

from datetime import timedelta

import pytest
import time_machine
from django.db import transaction
from django.utils import timezone

from aitbc.accounts import parameters
from aitbc.accounts.keys import create_key
from aitbc.chain.testing import AIT
from aitbc.core import db, outbox
from aitbc.core.clock import database_now
from aitbc.core.errors import Invalid
from aitbc.core.models import OutboxEvent
from aitbc.core.testing.cast import fund, person, seller
from apps.gpu.models import Job, Nonce
from apps.gpu.services import sweeps
from apps.gpu.tests.steps import lease_of, start
from apps.trading.models import Entry, PayoutTarget, Withdrawal
from apps.trading.services import ledger, payouts, withdrawals
from apps.trading.tests.books import account, balance, hold, transfer, user

WAIT = 300


@pytest.fixture(params=[600, -600], ids=["ahead", "behind"], autouse=True)
def skew(request, committed_db):
    with time_machine.travel(timezone.now() + timedelta(seconds=request.param), tick=True):
        assert abs((timezone.now() - database_now()).total_seconds() - request.param) < 60
        yield request.param


def set_parameter(name, value):
    parameters.change(name=name, value=value, by=None)


def test_a_holds_time_out():
    alice = account(10)
    ledger.apply_all([hold(alice, 1, timeout=WAIT), hold(alice, 2)])
    assert (db.value("SELECT ledger_expire(10)"), balance(alice)) == (0, (10, 3))


def test_a_new_withdrawal_address(monkeypatch):
    monkeypatch.setattr(withdrawals.intents, "address_of", lambda name: None)  # no chain is asked
    alice = person("alice", scopes=("money:read", "money:write"))
    ledger.apply_all([transfer(ledger.account_id(owner=None, kind="external", chain="test"),
                               ledger.account_id(owner=alice.id, kind="available"), 10 * AIT)])  # fmt: skip
    set_parameter("address_wait_seconds", WAIT)
    item = withdrawals.withdraw(user=alice.id, address="0x" + "ab" * 20, amount=AIT)
    left = (Withdrawal.objects.get(pk=item.pk).not_before - database_now()).total_seconds()
    assert WAIT - 60 < left <= WAIT
    assert withdrawals.send_due() == 0


def test_a_new_payout_address(monkeypatch):
    monkeypatch.setattr(withdrawals.intents, "address_of", lambda name: None)
    mike = user("mike")
    payouts.set_target(user=mike.pk, address="0x" + "ab" * 20)
    assert abs((PayoutTarget.objects.get(user=mike).set_at - database_now()).total_seconds()) < 60


def test_an_event_is_due_at_once():
    with transaction.atomic():
        outbox.announce("test.happened", "skew", {})
    assert OutboxEvent.objects.get(aggregate="skew").next_attempt_at <= database_now()
    assert outbox.relay_once() == 1


def test_a_lease_and_the_way_to_it():
    """Registration by nonce, lease, start: nothing is taken from a healthy miner."""
    client, miner = person("client", scopes=("jobs:read", "jobs:write")), seller("mike")
    fund(client.id, AIT)
    assert abs((Nonce.objects.latest("created_at").created_at - database_now()).total_seconds()) < 60
    lease = lease_of(client, miner)
    start(miner, lease)
    sweeps.sweep()
    assert Job.objects.get(pk=lease["id"]).state == "running"


def test_the_dispute_window_of_an_earning():
    set_parameter("maturing_seconds", WAIT)
    client, provider, job = user("client"), user("provider"), "01a209c5-4908-73e5-a184-faffcbe72977"
    account(100, owner=client.pk)
    opening = "SELECT payments_open(%s::uuid[], %s::uuid[], %s::uuid[], %s::numeric[], 'AIT')"
    assert db.value(opening, ([job], [job], [client.pk], [100])) == ["ok"]
    settling = "SELECT payments_settle(%s::uuid[], %s::uuid[], %s::numeric[], %s::numeric[])"
    assert db.value(settling, ([job], [provider.pk], [40], [1])) == 1
    assert db.value("SELECT payments_mature(10)") == 0


def test_a_keys_end():
    alice = user("alice")
    end = database_now() + timedelta(seconds=WAIT)
    assert create_key(user=alice, name="k", scopes=["money:read"], expires_at=end)[0].expires_at == end
    with pytest.raises(Invalid) as error:
        create_key(user=alice, name="k", scopes=["money:read"], expires_at=database_now())
    assert error.value.code == "key.expires_at"


def test_entries_carry_the_databases_time_in_order():
    alice, bob = account(10), account()
    for _ in range(3):
        ledger.apply_all([transfer(alice, bob, 1)])
    times = list(Entry.objects.order_by("id").values_list("created_at", flat=True))
    assert times == sorted(times)
    assert abs((times[-1] - database_now()).total_seconds()) < 60
