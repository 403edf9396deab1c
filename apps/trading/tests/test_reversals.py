"""A correction is a new transfer, made once; what it corrects stays as it is."""

import json
from io import StringIO

import pytest
from django.core.management import CommandError, call_command

from aitbc.core.errors import Conflict, NotFound
from aitbc.core.ids import uuid7
from aitbc.core.models import OutboxEvent
from apps.trading.models import Transfer
from apps.trading.services import ledger
from apps.trading.services.audit import audit
from apps.trading.services.reversals import reverse
from apps.trading.tests.books import account, balance, books, opened, post, transfer, void


@pytest.fixture
def moved(db):
    """Alice, Bob, and the 4 of her 10 that went to him."""
    alice, bob = account(10), account()
    item = transfer(alice, bob, 4)
    ledger.apply_all([item])
    yield alice, bob, item.id
    assert audit() == []


def test_a_reversal_moves_the_amount_back_and_leaves_the_transfer_alone(moved):
    alice, bob, done = moved
    before = set(books())
    found = Transfer.objects.get(id=reverse(done, reason="typed wrongly"))
    assert (balance(alice), balance(bob)) == ((10, 0), (0, 0))
    assert (found.kind, found.reference, int(found.amount)) == ("reversal", done, 4)
    assert {row for row in before - set(books()) if row[0] != "trading_account"} == set()
    (event,) = OutboxEvent.objects.filter(event="trading.transfer_reversed")
    assert (event.aggregate, event.payload["reason"]) == (str(done), "typed wrongly")


def test_a_transfer_is_reversed_once(moved):
    alice, bob, done = moved
    ledger.apply_all([transfer(alice, bob, 1)])
    assert reverse(done, reason="first") == reverse(done, reason="second")
    assert (balance(alice), balance(bob)) == ((9, 0), (1, 0))
    assert OutboxEvent.objects.filter(event="trading.transfer_reversed").count() == 1


def test_many_reversals_at_once_are_one(committed_db, in_threads):
    alice, bob = account(10), account(10)
    item = transfer(alice, bob, 4)
    ledger.apply_all([item])
    assert len(set(in_threads(lambda _: reverse(item.id, reason="all at once"), 8))) == 1
    assert (balance(alice), balance(bob)) == ((10, 0), (10, 0))


def test_money_that_was_spent_does_not_come_back(moved):
    _, bob, done = moved
    ledger.apply_all([transfer(bob, account(), 1)])
    before = books()
    with pytest.raises(Conflict) as error:
        reverse(done, reason="late")
    assert (error.value.code, books()) == ("payment.insufficient_funds", before)


def test_only_a_posted_transfer_that_no_state_machine_keeps_is_reversed(moved):
    alice, bob, done = moved
    held, gone, kept = opened(alice, 1), void(opened(alice, 1)), transfer(alice, bob, 1, kind="withdrawal")
    paid = post(opened(alice, 1), bob, 1)
    ledger.apply_all([gone, kept, paid])
    undone = reverse(done, reason="test")
    before = books()
    for one in (held, gone.id, kept.id, undone):
        with pytest.raises(Conflict) as error:
            reverse(one, reason="no")
        assert error.value.code == "ledger.not_reversible"
    with pytest.raises(NotFound) as error:
        reverse(uuid7(), reason="no")
    assert (error.value.code, books()) == ("ledger.transfer_unknown", before)
    reverse(paid.id, reason="a post is one")


def run(*arguments):
    out = StringIO()
    call_command("reverse_transfer", *map(str, arguments), "--reason", "typed wrongly", "--json", stdout=out)
    return json.loads(out.getvalue())


def test_the_command_shows_first_and_then_does_it(moved):
    alice, bob, done = moved
    shown = run(done, "--dry-run")
    assert (shown["dry_run"], balance(bob)) == (True, (4, 0))
    assert run(done) == shown | {"dry_run": False}
    assert (shown["debit"], shown["credit"], shown["amount"], balance(bob)) == (bob, alice, "4", (0, 0))


def test_the_command_names_what_is_wrong(moved):
    with pytest.raises(CommandError, match=r"ledger.transfer_unknown"):
        run(uuid7())
