"""Rule 9: above a threshold a second person, who takes no part in it, signs what he saw."""

from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import pytest
from django.db import IntegrityError, connections, transaction
from django.db.models import F

from aitbc.accounts import parameters
from aitbc.accounts.models import Role, User
from aitbc.chain import keystore, signing
from aitbc.chain.models import Intent
from aitbc.chain.testing import AIT, Actor
from aitbc.core.errors import Conflict, Forbidden, Unavailable
from aitbc.core.ids import uuid7
from aitbc.core.testing.cast import Person, person
from aitbc.core.testing.snapshot import nothing_changes
from apps.trading.models import Account, PayoutBatch, Withdrawal
from apps.trading.services import ledger, reviews
from apps.trading.services.audit import audit
from apps.trading.services.deposits import deposit_address
from apps.trading.services.payouts import seal_payouts, set_target
from apps.trading.services.withdrawals import cancel, send_due, withdraw

PASSWORD = "correct horse battery"
BIG = 150 * AIT  # above the contract's threshold of these tests, which is 100 AIT


def operator(name: str) -> User:
    return User.objects.create_user(f"{name}@example.com", PASSWORD, role=Role.OPERATOR)


@pytest.fixture
def passphrase(net, settings) -> str:
    return (Path(settings.KEYS_DIR) / "approver" / "passphrase").read_text()


@pytest.fixture
def olga(net) -> User:
    return operator("olga")


@pytest.fixture
def alice(net) -> Person:
    """With 1,000 AIT on the chain; addresses need not wait, and 100 AIT a day need no second person."""
    who = person("alice")
    net.mint(deposit_address(user=who.id), 1000 * AIT)
    net.settle()
    parameters.change(name="address_wait_seconds", value=0, by=None)
    parameters.change(name="withdrawal_approval_ait", value=100, by=None)
    return who


@pytest.fixture
def wallet(net) -> str:
    return Actor(net.client).address


@pytest.fixture
def factors(passphrase) -> dict[str, str]:
    return {"password": PASSWORD, "passphrase": passphrase}


def money(who: Person) -> tuple[int, int]:
    row = Account.objects.get(pk=ledger.account_id(owner=who.id, kind="available"))
    return int(row.posted), int(row.held)


@contextmanager
def refusing(error, code):
    with nothing_changes(), pytest.raises(error) as caught, transaction.atomic():
        yield
    assert caught.value.code == code


def test_a_large_withdrawal_leaves_with_two_keys_and_not_with_one(net, alice, wallet, olga, factors):
    item = withdraw(user=alice.id, address=wallet, amount=BIG)
    net.settle()
    assert (item.state, send_due(), Intent.objects.filter(function="withdraw").count()) == ("review", 0, 0)
    assert money(alice) == (1000 * AIT, BIG)

    approved = reviews.approve(item=item, by=olga, seen=reviews.payload(item), **factors)
    net.settle()

    assert approved.state == "sending"
    item.refresh_from_db()
    assert (item.state, item.approved_by, net.balance(wallet)) == ("final", olga, BIG)
    signed = bytes.fromhex(reviews.payload(item)[2:])
    assert signing.recover(signed, item.approval) == keystore.address("approver")
    assert Intent.objects.get(function="withdraw").args[3] == item.approval
    assert money(alice) == (1000 * AIT - BIG, 0)
    assert audit() == []


def test_the_threshold_is_on_the_sums_of_a_day_by_user_and_by_address(net, alice, wallet):
    assert withdraw(user=alice.id, address=wallet, amount=60 * AIT).state == "sending"
    assert withdraw(user=alice.id, address=Actor(net.client).address, amount=41 * AIT).state == "review"
    assert withdraw(user=alice.id, address=wallet, amount=1).state == "review"  # 101 AIT and one unit by now
    bob = person("bob")
    ledger.apply_all([_gift(alice, bob)])
    assert withdraw(user=bob.id, address=wallet, amount=41 * AIT).state == "review"  # this address got 60
    assert withdraw(user=bob.id, address=Actor(net.client).address, amount=1).state == "sending"


def _gift(giver: Person, taker: Person) -> ledger.Item:
    giving, taking = (ledger.account_id(owner=who.id, kind="available") for who in (giver, taker))
    return ledger.Item(id=uuid7(), action="transfer", kind="test.gift", debit=giving, credit=taking, amount=100 * AIT)


def test_a_forged_approval_is_refused_by_the_contract(net, alice, wallet, olga, factors):
    """Whoever holds the operator's key, or writes the database, still lacks the approver's signature."""
    item = withdraw(user=alice.id, address=wallet, amount=BIG)
    reviews.approve(item=item, by=olga, seen=reviews.payload(item), **factors)
    intent = Intent.objects.get(function="withdraw")
    digest = bytes.fromhex(reviews.payload(item)[2:])
    Intent.objects.update(args=[*intent.args[:3], keystore.load("operator").sign(digest)])

    net.settle()

    intent.refresh_from_db()
    assert intent.state == "failed"
    assert "NotApproved" in intent.error
    item.refresh_from_db()
    assert (item.state, net.balance(wallet)) == ("failed", 0)
    assert money(alice) == (1000 * AIT, 0)


def test_a_signature_for_another_amount_or_address_is_worth_nothing(net, alice, wallet, olga, factors):
    item = withdraw(user=alice.id, address=wallet, amount=BIG)
    reviews.approve(item=item, by=olga, seen=reviews.payload(item), **factors)
    intent = Intent.objects.get(function="withdraw")
    Intent.objects.update(args=[intent.args[0], intent.args[1], str(BIG + 1), intent.args[3]])
    net.settle()
    assert net.balance(wallet) == 0
    assert Intent.objects.get(function="withdraw").state == "failed"


def test_who_asks_or_profits_never_approves(net, alice, wallet, olga, factors):
    item = withdraw(user=alice.id, address=wallet, amount=BIG)
    User.objects.filter(pk=alice.id).update(role=Role.OPERATOR)
    alice.user.refresh_from_db()
    alice.user.set_password(PASSWORD)
    with refusing(Conflict, "approval.own"):
        reviews.approve(item=item, by=alice.user, seen=reviews.payload(item), **factors)

    set_target(user=olga.pk, address=wallet)  # the address is olga's, as the platform knows
    with refusing(Conflict, "approval.own"):
        reviews.approve(item=item, by=olga, seen=reviews.payload(item), **factors)
    set_target(user=olga.pk, address=None)
    reviews.approve(item=item, by=olga, seen=reviews.payload(item), **factors)


@pytest.mark.parametrize(
    "change",
    [
        "approved_by_id = user_id, approved_at = now(), approval = '{signature}', state = 'sending'",
        "state = 'sending'",
        "state = 'waiting', review_until = NULL",
        "amount = amount + 1",
        "address = '\\x00000000000000000000000000000000000000ff'",
        "approved_by_id = '{olga}', approved_at = review_until + interval '1 second',"
        " approval = '{signature}', state = 'sending'",
        "approved_by_id = '{olga}', approved_at = now(), approval = '0x', state = 'sending'",
    ],
)
def test_the_database_itself_refuses_the_first_person(net, alice, wallet, olga, change):
    item = withdraw(user=alice.id, address=wallet, amount=BIG)
    statement = change.format(signature="0x" + "ab" * 65, olga=olga.pk)
    with nothing_changes(), pytest.raises(IntegrityError), transaction.atomic():
        connections["default"].cursor().execute(f"UPDATE trading_withdrawal SET {statement} WHERE id = %s", [item.pk])


def test_an_approval_is_given_once(net, alice, wallet, olga, factors):
    item = withdraw(user=alice.id, address=wallet, amount=BIG)
    reviews.approve(item=item, by=olga, seen=reviews.payload(item), **factors)
    with refusing(Conflict, "approval.state"):
        reviews.approve(item=item, by=operator("otto"), seen=reviews.payload(item), **factors)
    with nothing_changes(), pytest.raises(IntegrityError), transaction.atomic():
        Withdrawal.objects.filter(pk=item.pk).update(approved_by=operator("oskar"))


def test_every_factor_is_asked_for_afresh(net, alice, wallet, olga, factors):
    item = withdraw(user=alice.id, address=wallet, amount=BIG)
    seen = reviews.payload(item)
    with refusing(Forbidden, "approval.password"):
        reviews.approve(item=item, by=olga, seen=seen, **factors | {"password": "a guess"})
    for wrong in ("a guess", ""):
        with refusing(Unavailable, "keystore.password"):
            reviews.approve(item=item, by=olga, seen=seen, **factors | {"passphrase": wrong})
    with refusing(Forbidden, "approval.role"):
        client = User.objects.create_user("carl@example.com", PASSWORD)
        reviews.approve(item=item, by=client, seen=seen, **factors)
    other = withdraw(user=alice.id, address=wallet, amount=1)
    with refusing(Conflict, "approval.differs"):
        reviews.approve(item=item, by=olga, seen=reviews.payload(other), **factors)


def test_after_a_day_it_lapses_and_the_hold_returns(net, alice, wallet, olga, factors):
    item = withdraw(user=alice.id, address=wallet, amount=BIG)
    assert item.review_until - item.created_at == timedelta(hours=24)
    assert reviews.lapse_due() == 0
    Withdrawal.objects.update(review_until=F("review_until") - timedelta(hours=24, seconds=1))
    with refusing(Conflict, "approval.late"):
        reviews.approve(item=item, by=olga, seen=reviews.payload(item), **factors)

    assert (reviews.lapse_due(), reviews.lapse_due()) == (1, 0)

    item.refresh_from_db()
    assert item.state == "lapsed"
    assert money(alice) == (1000 * AIT, 0)
    with refusing(Conflict, "approval.state"):
        reviews.approve(item=item, by=olga, seen=reviews.payload(item), **factors)
    assert withdraw(user=alice.id, address=wallet, amount=AIT).state == "sending"  # what lapsed counts no more
    assert audit() == []


def test_in_review_it_can_be_canceled(net, alice, wallet):
    item = withdraw(user=alice.id, address=wallet, amount=BIG)
    assert cancel(user=alice.id, withdrawal=item.pk).state == "canceled"
    assert money(alice) == (1000 * AIT, 0)


def test_a_new_address_waits_also_after_the_approval(net, alice, wallet, olga, factors):
    parameters.change(name="address_wait_seconds", value=3600, by=None)
    item = withdraw(user=alice.id, address=wallet, amount=BIG)
    assert reviews.approve(item=item, by=olga, seen=reviews.payload(item), **factors).state == "waiting"
    assert send_due() == 0
    Withdrawal.objects.update(not_before=F("created_at"))
    assert send_due() == 1
    net.settle()
    assert net.balance(wallet) == BIG


@pytest.fixture
def batch(net, alice, wallet) -> PayoutBatch:
    set_target(user=alice.id, address=wallet)
    found = seal_payouts(minimum=1, most=10**30, wait_seconds=0, alone=100 * AIT)
    assert found is not None
    return found


def test_a_large_payout_batch_is_promised_with_two_keys(net, alice, batch, olga, factors):
    net.settle()
    assert (batch.state, Intent.objects.filter(function="openPayout").count()) == ("review", 0)
    assert money(alice) == (1000 * AIT, 1000 * AIT)
    User.objects.filter(pk=alice.id).update(role=Role.OPERATOR)
    alice.user.refresh_from_db()
    alice.user.set_password(PASSWORD)
    with refusing(Conflict, "approval.own"):
        reviews.approve(item=batch, by=alice.user, seen=reviews.payload(batch), **factors)

    reviews.approve(item=batch, by=olga, seen=reviews.payload(batch), **factors)
    net.settle()

    batch.refresh_from_db()
    assert (batch.state, batch.approved_by) == ("final", olga)
    assert net.settlement.read("promised") == 1000 * AIT
    assert audit() == []


def test_a_payout_batch_that_nobody_approves_lapses_and_is_sealed_anew(net, alice, batch):
    with nothing_changes(), pytest.raises(IntegrityError), transaction.atomic():
        PayoutBatch.objects.update(state="sealed")
    PayoutBatch.objects.update(review_until=F("review_until") - timedelta(hours=25))
    assert reviews.lapse_due() == 1
    batch.refresh_from_db()
    assert batch.state == "lapsed"
    assert money(alice) == (1000 * AIT, 0)
    assert seal_payouts(minimum=1, most=50 * AIT, wait_seconds=0, alone=100 * AIT).state == "sealed"
    assert audit() == []
