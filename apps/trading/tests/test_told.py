"""What users hear of their money, told in the transaction that moves it, to those whom it concerns."""

import pytest

from aitbc.accounts.models import User
from aitbc.chain.testing import AIT, Actor
from aitbc.core import db
from aitbc.core.events import receivers
from aitbc.core.models import OutboxEvent
from aitbc.webhooks.events import CATALOGUE, fan_out
from apps.trading.models import Payment, Withdrawal
from apps.trading.services.deposits import deposit_address
from apps.trading.services.payouts import seal_payouts, set_target
from apps.trading.services.withdrawals import cancel, withdraw


@pytest.fixture
def alice(net):
    """She listens for everything, and has 10 AIT."""
    alice = User.objects.create_user("alice@example.com").pk
    listen(alice)
    net.mint(deposit_address(user=alice), 10 * AIT)
    net.settle()
    return alice


def listen(owner):
    db.rows("SELECT webhooks_create(%s, 'https://example.com/', '{}', 'nonce')", (owner,))


def told():
    """Events in their order, and their rows gone."""
    found = list(OutboxEvent.objects.filter(event__in=CATALOGUE).order_by("id"))
    OutboxEvent.objects.all().delete()
    return [(record.event, record.payload["owners"], record.payload["data"]) for record in found]


def test_a_credited_deposit(net, alice):
    ((event, owners, data),) = told()
    assert (event, owners) == ("deposit.credited", [str(alice)])
    assert (data["amount"], data["asset"], data["chain"]) == ("10", "AIT", "ait-devnet")
    assert data["tx_hash"].startswith("0x")


def test_a_deposit_of_somebody_who_does_not_listen_writes_no_event(net):
    bob = User.objects.create_user("bob@example.com").pk
    net.mint(deposit_address(user=bob), AIT)
    net.mint(net.settlement.address, AIT)  # and one that belongs to nobody
    net.settle()
    assert told() == []


def test_each_state_of_a_withdrawal(net, alice):
    told()
    db.rows("UPDATE accounts_parameter SET value = 3600 WHERE name = 'address_wait_seconds'")
    wallet = Actor(net.client).address
    item = withdraw(user=alice, address=wallet, amount=AIT // 2)
    cancel(user=alice, withdrawal=item.pk)
    db.rows("UPDATE accounts_parameter SET value = 0 WHERE name = 'address_wait_seconds'")
    second = withdraw(user=alice, address=wallet, amount=AIT)
    net.settle()

    events = told()

    assert [(event, data["id"]) for event, _, data in events] == [
        ("withdrawal.waiting", str(item.pk)),
        ("withdrawal.canceled", str(item.pk)),
        ("withdrawal.waiting", str(second.pk)),
        ("withdrawal.sending", str(second.pk)),
        ("withdrawal.final", str(second.pk)),
    ]
    assert {owner for _, owners, _ in events for owner in owners} == {str(alice)}
    assert [data["amount"] for _, _, data in events] == ["0.5", "0.5", "1", "1", "1"]
    assert [data["tx_hash"] is None for _, _, data in events] == [True] * 4 + [False]


def test_a_payout_that_can_be_claimed_and_its_claim(net, alice):
    told()
    from apps.trading.selectors.chain import payouts_of

    wallet = Actor(net.client)
    set_target(user=alice, address=wallet.address)
    seal_payouts(minimum=1, most=10**30, wait_seconds=0, alone=10**30)
    assert told() == []
    net.settle()
    ((event, owners, data),) = told()
    assert (event, owners, data["amount"], data["index"]) == ("payout.claimable", [str(alice)], "10", 0)

    claim = payouts_of(user=alice, cursor=None, limit=1)["items"][0]["claim"]
    names = ("batch_id", "index", "account", "units", "proof")
    net.settlement.send(wallet, "claim", *(claim[name] for name in names))
    net.settle()
    ((event, _, data),) = told()
    assert (event, data["amount"]) == ("payout.claimed", "10")
    assert data["tx_hash"].startswith("0x")


def test_nothing_is_told_of_what_was_rolled_back(net, alice):
    from django.db import transaction

    told()
    with transaction.atomic():
        withdraw(user=alice, address=Actor(net.client).address, amount=AIT)
        transaction.set_rollback(True)
    assert told() == []


def test_every_state_that_is_told_is_in_the_catalogue():
    for state in Withdrawal.State:
        assert CATALOGUE[f"withdrawal.{state}"] == "money:read"
    for state in Payment.State:
        assert (f"payment.{state}" in CATALOGUE) == (state != "escrowed")
    assert all(fan_out in receivers(event) for event in CATALOGUE)
