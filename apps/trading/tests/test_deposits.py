"""Money comes in once, when it is final, and to whom it belongs."""

from uuid import UUID, uuid4

import pytest

from aitbc.accounts.models import User
from aitbc.chain.addresses import bytes32
from aitbc.chain.models import FinalEvent, Intent
from aitbc.chain.testing import AIT, Actor
from aitbc.core import db
from apps.trading.models import Account, Deposit, DepositAddress
from apps.trading.services import ledger
from apps.trading.services.deposits import TREASURY, deposit_address


@pytest.fixture
def alice(net) -> UUID:
    return User.objects.create_user("alice@example.com").pk


def balance(kind: str, owner: UUID | None = None, chain: str = "") -> int:
    account = ledger.account_id(owner=owner, kind=kind, chain=chain)
    return int(Account.objects.get(pk=account).posted)


def external() -> int:
    return balance("external", chain="ait-devnet")


def stray() -> int:
    return balance("unattributed", chain="ait-devnet")


def test_the_address_is_the_contracts_and_stays(net, alice):
    address = deposit_address(user=alice)

    onchain = net.settlement.read("depositAddress", bytes32(alice))
    assert address.lower() == onchain
    assert deposit_address(user=alice) == address
    assert deposit_address(user=None).lower() == net.settlement.read("depositAddress", bytes32(TREASURY))
    assert DepositAddress.objects.count() == 2


def test_tokens_at_a_deposit_address_are_credited_when_final_and_only_once(net, alice):
    address = deposit_address(user=alice)
    net.mint(address, 7 * AIT)
    worker = net.worker()
    worker.tick()
    assert balance("available", alice) == 0

    net.settle(worker)

    assert balance("available", alice) == 7 * AIT
    assert external() == -7 * AIT
    deposit = Deposit.objects.get()
    assert (deposit.user_id, deposit.booked, deposit.amount, deposit.address) == (alice, "user", 7 * AIT, address)
    net.settle(net.worker())
    assert balance("available", alice) == 7 * AIT


def test_the_sweep_moves_tokens_into_the_contract_and_books_nothing(net, alice):
    net.mint(deposit_address(user=alice), 7 * AIT)
    net.settle()

    assert Intent.objects.get(kind="settlement.sweep").state == "final"
    assert net.balance(net.settlement.address) == 7 * AIT
    assert (balance("available", alice), external(), stray()) == (7 * AIT, -7 * AIT, 0)
    assert Deposit.objects.count() == 1


def test_two_deposits_in_one_address_are_two_credits(net, alice):
    address = deposit_address(user=alice)
    net.mint(address, 1)
    net.mint(address, 2)
    net.settle()
    assert balance("available", alice) == 3
    assert sorted(Deposit.objects.values_list("amount", flat=True)) == [1, 2]


def _call_deposit(net, user: str, amount: int) -> Actor:
    payer = Actor(net.client)
    net.mint(payer.address, amount)
    net.token.send(payer, "approve", net.settlement.address, str(amount))
    net.settlement.send(payer, "depositFor", user, str(amount))
    return payer


def test_a_deposit_by_call_is_credited_to_the_user_it_names(net, alice):
    payer = _call_deposit(net, bytes32(alice), 4 * AIT)
    net.settle()

    assert balance("available", alice) == 4 * AIT
    assert (external(), stray()) == (-4 * AIT, 0)
    assert Deposit.objects.get().sender == payer.address


def test_a_deposit_by_call_for_the_treasury(net):
    _call_deposit(net, bytes32(TREASURY), AIT)
    net.settle()
    assert balance("treasury") == AIT


@pytest.mark.parametrize(
    "user",
    [bytes32(uuid4()), "0x" + "00" * 12 + "ab" * 20, "0x" + "ff" * 32],
    ids=["an unknown user", "an address", "all ones"],
)
def test_a_deposit_for_nobody_is_unattributed(net, alice, user):
    _call_deposit(net, user, 4 * AIT)
    net.settle()
    assert (stray(), external(), balance("available", alice)) == (4 * AIT, -4 * AIT, 0)
    assert Deposit.objects.get().booked == "unattributed"


def test_tokens_sent_to_the_contract_without_a_call_are_unattributed(net, alice):
    net.mint(net.settlement.address, AIT)
    _call_deposit(net, bytes32(alice), 2 * AIT)
    net.settle()
    assert (stray(), balance("available", alice), external()) == (AIT, 2 * AIT, -3 * AIT)


def test_transfers_between_others_and_empty_ones_book_nothing(net, alice):
    net.token.send(net.minter, "transfer", deposit_address(user=alice), "0")
    net.mint(Actor(net.client).address, AIT)
    net.settle()
    assert FinalEvent.objects.filter(name="Transfer").count() == 2
    assert Deposit.objects.count() == 0
    assert external() == 0


def test_tokens_that_were_there_before_the_address_was_asked_for_are_credited_then(net, alice):
    unknown = net.settlement.read("depositAddress", bytes32(alice))
    net.mint(unknown, 3 * AIT)
    net.settle()
    assert external() == 0

    deposit_address(user=alice)

    assert (balance("available", alice), external()) == (3 * AIT, -3 * AIT)
    net.settle()
    assert net.balance(net.settlement.address) == 3 * AIT
    assert (balance("available", alice), external(), stray()) == (3 * AIT, -3 * AIT, 0)


def test_tokens_swept_before_the_address_was_asked_for_stay_unattributed(net, alice):
    net.mint(net.settlement.read("depositAddress", bytes32(alice)), 3 * AIT)
    net.settlement.send(Actor(net.client), "sweep", bytes32(alice))
    net.settle()
    assert (stray(), external()) == (3 * AIT, -3 * AIT)

    deposit_address(user=alice)
    net.mint(deposit_address(user=alice), AIT)
    net.settle()

    assert (stray(), external(), balance("available", alice)) == (3 * AIT, -4 * AIT, AIT)


def test_a_deposit_that_is_reorganised_away_was_never_credited(net, chain, alice):
    address = deposit_address(user=alice)
    snapshot = chain.call("evm_snapshot")
    net.mint(address, AIT)
    worker = net.worker()
    worker.tick()
    chain.call("evm_revert", snapshot)
    net.mint(Actor(net.client).address, 5)
    net.mine(12)
    net.settle(worker)
    assert balance("available", alice) == 0
    assert Deposit.objects.count() == 0


def test_the_books_balance_after_all_kinds_of_deposits(net, alice):
    net.mint(deposit_address(user=alice), 5)
    net.mint(deposit_address(user=None), 6)
    net.mint(net.settlement.address, 7)
    _call_deposit(net, bytes32(alice), 8)
    net.settle()
    assert db.value("SELECT sum(posted) FROM trading_account") == 0
    assert -external() == 26
    assert net.balance(net.settlement.address) == 26
