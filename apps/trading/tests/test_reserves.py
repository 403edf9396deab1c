"""The ledger against the chain, at one block."""

import pytest
from django.db import connection

from aitbc.accounts.models import User
from aitbc.chain import reads
from aitbc.chain.models import NetworkStatus
from aitbc.chain.testing import AIT, Actor
from aitbc.core.errors import Unavailable
from aitbc.core.ids import uuid7
from aitbc.core.models import OutboxEvent
from apps.trading.models import ReserveCheck
from apps.trading.selectors.chain import reserves as reserves_document
from apps.trading.services import ledger
from apps.trading.services.deposits import deposit_address
from apps.trading.services.payouts import seal_payouts, set_target
from apps.trading.services.reserves import check_reserves


@pytest.fixture
def net(committed_net, monkeypatch):
    monkeypatch.setattr(reads, "client", lambda: committed_net.client)
    return committed_net


@pytest.fixture
def alice(net):
    return User.objects.create_user("alice@example.com").pk


def test_reserves_equal_liabilities_through_the_life_of_money(net, alice):
    wallet = Actor(net.client)
    address = deposit_address(user=alice)
    net.mint(address, 10 * AIT)
    net.mint(net.settlement.address, AIT)
    net.settle()
    check = check_reserves()
    assert (check.difference, check.pending, check.liabilities) == (0, 0, 11 * AIT)
    assert check.contract + check.unswept == 11 * AIT

    set_target(user=alice, address=wallet.address)
    seal_payouts(minimum=1, most=10**30, wait_seconds=0, alone=10**30)
    net.settle()
    assert check_reserves().difference == 0
    assert check_reserves().liabilities == 11 * AIT

    from apps.trading.selectors.chain import payouts_of

    claim = payouts_of(user=alice, cursor=None, limit=1)["items"][0]["claim"]
    net.settlement.send(wallet, "claim", *(claim[k] for k in ("batch_id", "index", "account", "units", "proof")))
    net.settle()
    check = check_reserves()
    assert (check.difference, check.liabilities, check.contract) == (0, AIT, AIT)
    assert OutboxEvent.objects.filter(event="trading.reserves_differ").count() == 0


def test_unswept_addresses_count(net, alice, monkeypatch):
    from apps.trading.services import deposits

    monkeypatch.setattr(deposits, "_request_sweep", lambda event, target: None)
    net.mint(deposit_address(user=alice), 3 * AIT)
    net.settle()
    check = check_reserves()
    assert (check.contract, check.unswept, check.difference) == (0, 3 * AIT, 0)


def test_final_events_that_wait_for_the_ledger_are_listed(net, alice):
    net.mint(deposit_address(user=alice), 3 * AIT)
    net.settle()
    event_cursor = NetworkStatus.objects.get().event_cursor
    NetworkStatus.objects.update(event_cursor=0)  # as if nothing were consumed
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")
    ledger.apply_all(
        [
            ledger.Item(
                id=uuid7(),
                action="transfer",
                kind="test.undo",
                debit=ledger.account_id(owner=alice, kind="available"),
                credit=ledger.account_id(owner=None, kind="external", chain="ait-devnet"),
                amount=3 * AIT,
            )
        ]
    )
    check = check_reserves()
    assert (check.pending, check.liabilities, check.difference) == (3 * AIT, 0, 0)
    NetworkStatus.objects.update(event_cursor=event_cursor)
    assert check_reserves().difference == 3 * AIT


def test_one_unit_that_the_chain_does_not_hold_is_an_alarm(net, alice):
    net.mint(deposit_address(user=alice), AIT)
    net.settle()
    ledger.apply_all(
        [
            ledger.Item(
                id=uuid7(),
                action="transfer",
                kind="test.planted",
                debit=ledger.account_id(owner=None, kind="external", chain="ait-devnet"),
                credit=ledger.account_id(owner=alice, kind="available"),
                amount=1,
            )
        ]
    )
    assert check_reserves().difference == -1
    event = OutboxEvent.objects.get(event="trading.reserves_differ")
    assert event.payload == {"difference": "-1"}


def test_nothing_is_claimed_before_a_block_is_final_or_without_the_node(net, monkeypatch):
    with pytest.raises(Unavailable, match=r"reserves\.unchecked"):
        check_reserves()
    with pytest.raises(Unavailable, match=r"reserves\.unchecked"):
        reserves_document(asset="AIT")
    net.settle()

    def down():
        raise Unavailable("chain.unavailable", "the node does not answer")

    monkeypatch.setattr(reads, "client", down)
    with pytest.raises(Unavailable, match=r"chain\.unavailable"):
        check_reserves()
    assert ReserveCheck.objects.count() == 0
