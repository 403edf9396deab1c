"""Rule 2: one rail for withdrawals: an intent id is paid once, its hold stays until the end is certain."""

import random
from contextlib import nullcontext

import pytest

from aitbc.accounts import parameters
from aitbc.accounts.models import User
from aitbc.chain.addresses import bytes32
from aitbc.chain.models import Intent
from aitbc.chain.testing import AIT, Actor
from aitbc.core import db
from aitbc.core.errors import Conflict
from aitbc.core.ids import uuid7
from aitbc.core.testing.cast import Person, person
from apps.trading.models import Account, Withdrawal
from apps.trading.services import ledger, reviews
from apps.trading.services.audit import audit
from apps.trading.services.deposits import deposit_address
from apps.trading.services.withdrawals import cancel, send_due, withdraw


@pytest.fixture
def alice(net) -> Person:
    who = person("alice")
    net.mint(deposit_address(user=who.id), 100 * AIT)
    net.settle()
    parameters.change(name="address_wait_seconds", value=0, by=None)
    return who


def wallet_of(who: Person) -> Account:
    return Account.objects.get(pk=ledger.account_id(owner=who.id, kind="available"))


def held(who: Person) -> int:
    return int(wallet_of(who).held)


def left(who: Person) -> int:
    return int(wallet_of(who).posted) - held(who)


def test_the_contract_pays_an_intent_id_once(net):
    net.mint(net.settlement.address, 10 * AIT)
    net.settle()
    first = net.withdrawal("0x" + "00" * 18 + "b0b0")
    net.settle()
    again = net.anchor(kind="test.withdraw", business_key=f"again:{uuid7()}", function="withdraw", args=first.args)
    net.settle()

    for intent in (first, again):
        intent.refresh_from_db()
        assert intent.state == "final"
    assert again.tx_hash == first.tx_hash  # its effect was on the chain already
    assert net.balance("0x" + "00" * 18 + "b0b0") == AIT


def test_a_sent_withdrawal_keeps_its_hold_until_its_end_is_final(net, alice, settings):
    settings.CHAIN_EMBEDDED = False  # no blocks but ours
    net.client.call("evm_setAutomine", False)
    wallet = Actor(net.client).address
    item = withdraw(user=alice.id, address=wallet, amount=7 * AIT)
    worker = net.worker()
    while Intent.objects.get(kind="settlement.withdrawal").state != "broadcast":
        worker.tick()
    net.client.call("anvil_dropTransaction", Intent.objects.get(kind="settlement.withdrawal").tx_hash)
    net.lose_chain_database()
    with pytest.raises(Conflict, match="sending"):
        cancel(user=alice.id, withdrawal=item.pk)
    assert held(alice) == 7 * AIT

    worker = net.worker()
    for _ in range(20):
        net.mine()
        worker.tick()

    item.refresh_from_db()
    assert item.state == "final"
    assert (net.balance(wallet), held(alice)) == (7 * AIT, 0)
    assert net.settlement.read("used", bytes32(item.pk)) is True


@pytest.mark.parametrize("seed", range(3))
def test_what_leaves_never_exceeds_what_there_was(net, alice, seed):
    rng = random.Random(seed)
    wallets = [Actor(net.client).address for _ in range(3)]

    for _ in range(20):
        step = rng.choice(["withdraw", "withdraw", "settle", "cancel", "wait", "send"])
        if step == "withdraw":
            amount = rng.randrange(1, 40 * AIT)
            with nullcontext() if amount <= left(alice) else pytest.raises(Conflict, match="does not cover"):
                withdraw(user=alice.id, address=rng.choice(wallets), amount=amount)
        elif step == "settle":
            net.settle()
        elif step == "wait":
            parameters.change(name="address_wait_seconds", value=rng.choice([0, 3600]), by=None)
        elif step == "send":
            send_due()
        elif waiting := Withdrawal.objects.filter(state="waiting").first():
            cancel(user=alice.id, withdrawal=waiting.pk)
        assert sum(net.balance(wallet) for wallet in wallets) <= 100 * AIT
    net.settle()

    sent = sum(net.balance(wallet) for wallet in wallets)
    finals = Withdrawal.objects.filter(state="final").values_list("amount", flat=True)
    assert sent == sum(finals)
    assert int(db.value("SELECT posted FROM trading_account WHERE owner_id = %s", (alice.id,))) == 100 * AIT - sent
    assert audit() == []


def test_a_second_key_rides_the_same_rail_and_pays_once(net, alice, settings):
    """Above the threshold the approver signs too; a repeat of the very same approved call pays nothing."""
    net.mint(deposit_address(user=alice.id), 100 * AIT)
    net.settle()
    parameters.change(name="withdrawal_approval_ait", value=100, by=None)
    wallet = Actor(net.client).address
    item = withdraw(user=alice.id, address=wallet, amount=150 * AIT)
    olga = User.objects.create_user("olga@example.com", "a long password", role="operator")
    phrase = (settings.KEYS_DIR / "approver" / "passphrase").read_text()
    seen = reviews.payload(item)
    reviews.approve(item=item, by=olga, seen=seen, password="a long password", passphrase=phrase)
    net.settle()
    intent = Intent.objects.get(kind="settlement.withdrawal")
    again = net.anchor(kind="test.withdraw", business_key=f"again:{uuid7()}", function="withdraw", args=intent.args)
    net.settle()

    again.refresh_from_db()
    assert (intent.state, again.state, again.tx_hash) == ("final", "final", intent.tx_hash)
    assert net.balance(wallet) == 150 * AIT
    assert (left(alice), held(alice)) == (50 * AIT, 0)
