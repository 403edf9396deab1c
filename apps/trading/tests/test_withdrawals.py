"""A withdrawal leaves once, within its limits, and comes back whole when it cannot leave."""

from contextlib import contextmanager
from datetime import timedelta

import pytest
from django.db import transaction
from django.db.models import F

from aitbc.accounts import parameters
from aitbc.chain.models import Intent, NetworkStatus
from aitbc.chain.testing import AIT, Actor
from aitbc.core import db
from aitbc.core.errors import Conflict, Invalid, NotFound, Unavailable
from aitbc.core.ids import uuid7
from aitbc.core.testing.cast import Person, person
from aitbc.core.testing.snapshot import nothing_changes
from apps.trading.models import Account, Withdrawal
from apps.trading.services import ledger, withdrawals
from apps.trading.services.audit import audit
from apps.trading.services.deposits import deposit_address


@pytest.fixture
def alice(net) -> Person:
    """With 10 AIT that lie on the chain."""
    who = person("alice", scopes=("money:read", "money:write"))
    net.mint(deposit_address(user=who.id), 10 * AIT)
    net.settle()
    set_parameter("address_wait_seconds", 0)
    return who


@pytest.fixture
def wallet(net) -> str:
    return Actor(net.client).address


def set_parameter(name: str, value: int) -> None:
    parameters.change(name=name, value=value, by=None)


def money(who: Person) -> tuple[int, int]:
    row = Account.objects.get(pk=ledger.account_id(owner=who.id, kind="available"))
    return int(row.posted), int(row.held)


def external() -> int:
    return int(Account.objects.get(kind="external").posted)


@contextmanager
def refusing(error, code):
    with nothing_changes(), pytest.raises(error) as caught, transaction.atomic():
        yield
    assert caught.value.code == code


def test_held_then_sent_then_posted(net, alice, wallet):
    item = withdrawals.withdraw(user=alice.id, address=wallet.lower(), amount=4 * AIT)
    assert (item.state, item.address) == ("sending", wallet)
    assert money(alice) == (10 * AIT, 4 * AIT)

    net.settle()

    item.refresh_from_db()
    assert item.state == "final"
    assert net.client.receipt(item.tx_hash).succeeded
    assert net.balance(wallet) == 4 * AIT
    assert money(alice) == (6 * AIT, 0)
    assert external() == -6 * AIT
    assert audit() == []


def test_more_than_is_there_is_refused(alice, wallet):
    with refusing(Conflict, "payment.insufficient_funds"):
        withdrawals.withdraw(user=alice.id, address=wallet, amount=10 * AIT + 1)


def test_a_new_address_waits_and_a_known_one_does_not_wait_again(net, alice, wallet):
    set_parameter("address_wait_seconds", 3600)
    first = withdrawals.withdraw(user=alice.id, address=wallet, amount=AIT)
    assert (first.state, first.not_before - first.created_at) == ("waiting", timedelta(hours=1))
    assert withdrawals.send_due() == 0
    net.settle()
    assert net.balance(wallet) == 0

    Withdrawal.objects.update(
        created_at=F("created_at") - timedelta(hours=1), not_before=F("not_before") - timedelta(hours=1)
    )
    second = withdrawals.withdraw(user=alice.id, address=wallet, amount=2 * AIT)
    assert second.state == "sending"
    assert withdrawals.send_due() == 1
    assert withdrawals.send_due() == 0
    net.settle()
    assert net.balance(wallet) == 3 * AIT


def test_another_users_known_address_is_new_to_me(alice, wallet):
    withdrawals.withdraw(user=alice.id, address=wallet, amount=AIT)
    set_parameter("address_wait_seconds", 3600)
    bob = person("bob")
    ledger.apply_all([_gift(alice, bob)])
    assert withdrawals.withdraw(user=bob.id, address=wallet, amount=AIT).state == "waiting"


def _gift(giver: Person, taker: Person) -> ledger.Item:
    giving, taking = (ledger.account_id(owner=who.id, kind="available") for who in (giver, taker))
    return ledger.Item(id=uuid7(), action="transfer", kind="test.gift", debit=giving, credit=taking, amount=3 * AIT)


def test_one_that_waits_can_be_canceled_and_one_that_was_sent_cannot(net, alice, wallet):
    set_parameter("address_wait_seconds", 3600)
    item = withdrawals.withdraw(user=alice.id, address=wallet, amount=AIT)
    with refusing(NotFound, "withdrawal.unknown"):
        withdrawals.cancel(user=person("bob").id, withdrawal=item.pk)

    assert withdrawals.cancel(user=alice.id, withdrawal=item.pk).state == "canceled"
    assert money(alice) == (10 * AIT, 0)
    with refusing(Conflict, "withdrawal.sent"):
        withdrawals.cancel(user=alice.id, withdrawal=item.pk)
    assert audit() == []

    set_parameter("address_wait_seconds", 0)
    sent = withdrawals.withdraw(user=alice.id, address=wallet, amount=AIT)
    with refusing(Conflict, "withdrawal.sent"):
        withdrawals.cancel(user=alice.id, withdrawal=sent.pk)


def test_the_limit_of_a_day_counts_by_user_and_by_address(alice, wallet, net):
    set_parameter("withdrawal_daily_ait", 5)
    withdrawals.withdraw(user=alice.id, address=wallet, amount=3 * AIT)
    with refusing(Conflict, "withdrawal.limit"):
        withdrawals.withdraw(user=alice.id, address=Actor(net.client).address, amount=2 * AIT + 1)
    bob = person("bob")
    ledger.apply_all([_gift(alice, bob)])
    with refusing(Conflict, "withdrawal.limit"):
        withdrawals.withdraw(user=bob.id, address=wallet, amount=2 * AIT + 1)

    Withdrawal.objects.update(created_at=F("created_at") - timedelta(hours=25))
    assert withdrawals.withdraw(user=bob.id, address=wallet, amount=3 * AIT).state == "sending"


def test_what_the_chain_refuses_for_good_is_available_again(net, alice, wallet):
    item = withdrawals.withdraw(user=alice.id, address=wallet, amount=AIT)
    intent = Intent.objects.get(kind="settlement.withdrawal")
    Intent.objects.filter(pk=intent.pk).update(state="failed")
    intent.state = Intent.State.FAILED

    withdrawals.finish_withdrawal(intent)
    with nothing_changes():
        withdrawals.finish_withdrawal(intent)

    item.refresh_from_db()
    assert item.state == "failed"
    assert money(alice) == (10 * AIT, 0)
    assert audit() == []


@pytest.mark.parametrize("whose", ["zero", "Settlement", "AIT"])
def test_nothing_is_sent_where_nobody_could_move_it(net, alice, whose):
    addresses = {"zero": "0x" + "00" * 20, "Settlement": net.settlement.address, "AIT": net.token.address}
    with refusing(Invalid, "withdrawal.address"):
        withdrawals.withdraw(user=alice.id, address=addresses[whose], amount=AIT)


def test_a_halted_network_takes_no_withdrawal(alice, wallet):
    NetworkStatus.objects.update(halted="deep reorganisation")
    with refusing(Unavailable, "chain.halted"):
        withdrawals.withdraw(user=alice.id, address=wallet, amount=AIT)


def test_over_http_it_is_made_once_per_key_read_by_its_owner_and_listed(net, alice, wallet):
    body = {"amount": "1.5", "address": wallet}
    made = alice.post("/v1/withdrawals", body, idempotency_key="one")
    again = alice.post("/v1/withdrawals", body, idempotency_key="one")
    assert (made.status_code, again.status_code) == (201, 201)
    assert made.json() == again.json()
    assert money(alice)[1] == 1.5 * AIT
    net.settle()

    path = f"/v1/withdrawals/{made.json()['id']}"
    shown = alice.get(path).json()
    assert (shown["amount"], shown["asset"], shown["chain"]) == ("1.5", "AIT", "ait-devnet")
    assert (shown["state"], shown["address"]) == ("final", wallet)
    bob = person("bob", scopes=("money:read", "money:write"))
    assert bob.get(path).json()["code"] == "withdrawal.unknown"
    assert bob.get("/v1/withdrawals").json() == {"items": [], "next": None}
    alice.post("/v1/withdrawals", {"amount": "1", "address": wallet})
    first = alice.get("/v1/withdrawals?limit=1").json()
    rest = alice.get(f"/v1/withdrawals?limit=1&cursor={first['next']}").json()
    assert [item["amount"] for item in first["items"] + rest["items"]] == ["1", "1.5"]


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"amount": "-1"}, "money.amount"),
        ({"amount": "0"}, "money.amount"),
        ({"amount": "1.0000000000000000001"}, "money.amount"),
        ({"address": "0x12"}, "signing.address"),
        ({"chain": "ait-mainnet"}, "withdrawal.unsupported"),
        ({"asset": "BTC"}, "request.invalid"),
        ({"memo": "x"}, "request.invalid"),
    ],
)
def test_bad_input_is_named_and_changes_nothing(alice, wallet, change, code):
    with nothing_changes():
        answer = alice.post("/v1/withdrawals", {"amount": "1", "address": wallet} | change)
    assert (answer.status_code, answer.json()["code"]) == (422, code)


def test_sixteen_at_once_never_take_more_than_there_is(committed_net, in_threads):
    net = committed_net
    who = person("alice")
    net.mint(deposit_address(user=who.id), 10 * AIT)
    net.settle()
    set_parameter("address_wait_seconds", 0)
    wallet = Actor(net.client).address

    def take(_: int) -> str:
        try:
            return withdrawals.withdraw(user=who.id, address=wallet, amount=3 * AIT).state
        except Conflict as error:
            return error.code

    assert sorted(in_threads(take, 16)) == ["payment.insufficient_funds"] * 13 + ["sending"] * 3
    net.settle()
    assert net.balance(wallet) == 9 * AIT
    assert money(who) == (AIT, 0)
    assert db.value("SELECT sum(posted) FROM trading_account") == 0
