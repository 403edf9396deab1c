"""Each rule of `ledger_apply`, by its exact code; whatever is refused leaves every row as it was."""

from dataclasses import replace
from decimal import Decimal

import pytest
from django.db import DataError, IntegrityError, transaction

from aitbc.core import db
from aitbc.core.errors import Conflict, DomainError, Invalid, NotFound
from aitbc.core.ids import uuid7
from apps.trading.models import Account, Asset, Entry, Transfer
from apps.trading.services import ledger
from apps.trading.services.audit import audit
from apps.trading.tests.books import account, balance, books, hold, opened, outside, post, transfer, user, void


@pytest.fixture(autouse=True)
def _sound_in_the_end(request):
    request.getfixturevalue("committed_db" if "committed_db" in request.fixturenames else "db")
    yield
    assert audit() == []


def refused(*items):
    """The codes of items that must change nothing at all."""
    before = books()
    codes = ledger.apply(items)
    assert books() == before
    return codes


# -- transfers ---------------------------------------------------------------------------------


def test_a_transfer_moves_its_amount_and_writes_two_legs():
    alice, bob = account(100), account()
    item = transfer(alice, bob, 30, reference=uuid7())

    assert ledger.apply([item]) == ["ok"]

    assert (balance(alice), balance(bob)) == ((70, 0), (30, 0))
    stored = Transfer.objects.get(pk=item.id)
    assert (stored.state, stored.debit_id, stored.credit_id, stored.amount) == ("posted", alice, bob, 30)
    assert (stored.kind, stored.reference, stored.hold) == ("test.transfer", item.reference, None)
    assert stored.resolved_at == stored.created_at
    legs = Entry.objects.filter(transfer_id=item.id).order_by("id").values_list("account_id", "amount")
    assert list(legs) == [(alice, -30), (bob, 30)]


def test_the_last_unit_can_be_spent_and_no_more():
    alice, bob = account(10), account()
    assert refused(transfer(alice, bob, 11)) == ["insufficient_funds"]
    assert ledger.apply([transfer(alice, bob, 10)]) == ["ok"]
    assert refused(transfer(alice, bob, 1)) == ["insufficient_funds"]
    assert balance(alice) == (0, 0)


def test_held_units_cannot_be_spent():
    alice, bob = account(10), account()
    opened(alice, 7)
    assert refused(transfer(alice, bob, 4), hold(alice, 4)) == ["insufficient_funds"] * 2
    assert ledger.apply([transfer(alice, bob, 3)]) == ["ok"]
    assert balance(alice) == (7, 7)


@pytest.mark.parametrize("kind", [kind for kind in Account.Kind if kind != Account.Kind.EXTERNAL])
def test_no_account_but_the_external_one_may_go_below_zero(kind):
    poor = ledger.account_id(owner=user("poor").pk, kind=kind)
    assert refused(transfer(poor, outside(), 1), hold(poor, 1)) == ["insufficient_funds"] * 2


def test_the_external_account_mirrors_value_outside_and_goes_below_zero():
    mirror, alice = outside(), account()
    assert ledger.apply([transfer(mirror, alice, 10**30)]) == ["ok"]
    assert (balance(mirror), balance(alice)) == ((-(10**30), 0), (10**30, 0))


@pytest.mark.parametrize("amount", [0, -1, -(10**30), 1.5, Decimal("0.1"), Decimal("NaN"), None], ids=lambda a: str(a))
def test_an_amount_is_a_positive_whole_number(amount):
    alice, bob = account(10), account()
    held = opened(alice, 5)
    items = [transfer(alice, bob, amount), transfer(outside(), bob, amount), hold(alice, amount)]
    assert refused(*items, post(held, bob, amount)) == ["amount_not_positive"] * 4


@pytest.mark.parametrize("amount", [10**38, 10**60, Decimal("Infinity")])
def test_an_amount_beyond_38_digits_is_refused(amount):
    assert refused(transfer(outside(), account(), amount)) == ["amount_too_large"]


def test_a_whole_number_written_with_a_point_is_a_whole_number():
    alice = account()
    assert ledger.apply([transfer(outside(), alice, Decimal("5.00"))]) == ["ok"]
    assert balance(alice) == (5, 0)


def test_the_largest_amount_fits():
    rich = account()
    assert ledger.apply([transfer(outside(), rich, 10**38 - 1)]) == ["ok"]
    assert balance(rich) == (10**38 - 1, 0)
    before = books()
    with pytest.raises(DataError), transaction.atomic():
        ledger.apply([transfer(outside(), rich, 1)])
    assert books() == before


@pytest.mark.parametrize("unknown", [None, 0, -1, 2**62])
def test_an_unknown_account_is_refused_on_either_side(unknown):
    alice = account(10)
    held = opened(alice, 5)
    codes = refused(transfer(unknown, alice, 1), transfer(alice, unknown, 1), hold(unknown, 1), post(held, unknown, 1))
    assert codes == ["account_unknown"] * 4


def test_a_transfer_to_itself_is_refused():
    alice = account(10)
    held = opened(alice, 5)
    assert refused(transfer(alice, alice, 1), post(held, alice, 1)) == ["same_account"] * 2


def test_assets_do_not_mix(committed_db):
    Asset.objects.using("owner").create(code="TST", name="Test", decimals=2)
    alice, tester = account(10), account(10, asset="TST")
    held = opened(alice, 5)

    codes = refused(transfer(alice, tester, 1), transfer(tester, alice, 1), post(held, tester, 1))

    assert codes == ["asset_mismatch"] * 3
    assert ledger.apply([transfer(tester, outside("TST"), 10)]) == ["ok"]


# -- holds -------------------------------------------------------------------------------------


def test_a_hold_reserves_and_moves_nothing():
    alice = account(10)
    item = hold(alice, 4, reference=uuid7())
    assert ledger.apply([item]) == ["ok"]
    assert balance(alice) == (10, 4)
    stored = Transfer.objects.get(pk=item.id)
    assert (stored.state, stored.credit_id, stored.amount, stored.resolved_at) == ("pending", None, 4, None)
    assert not Entry.objects.filter(transfer_id=item.id).exists()


def test_a_post_pays_out_of_the_hold_and_the_rest_returns():
    alice, bob = account(10), account()
    held = opened(alice, 8)
    item = post(held, bob, 5)

    assert ledger.apply([item]) == ["ok"]

    assert (balance(alice), balance(bob)) == ((5, 0), (5, 0))
    resolved = Transfer.objects.get(pk=held)
    assert (resolved.state, resolved.resolved_at) == ("posted", Transfer.objects.get(pk=item.id).created_at)
    assert Transfer.objects.get(pk=item.id).hold == held


def test_all_of_a_hold_may_be_posted_and_not_one_unit_more():
    alice, bob = account(10), account()
    held = opened(alice, 8)
    assert refused(post(held, bob, 9)) == ["exceeds_hold"]
    assert ledger.apply([post(held, bob, 8)]) == ["ok"]
    assert (balance(alice), balance(bob)) == ((2, 0), (8, 0))


def test_several_posts_of_one_hold_in_one_call_are_its_one_resolution():
    alice, bob, fees = account(10), account(), account()
    held = opened(alice, 9)
    codes = ledger.apply([post(held, bob, 5), post(held, fees, 5), post(held, fees, 4)])
    assert codes == ["ok", "exceeds_hold", "ok"]
    assert (balance(alice), balance(bob), balance(fees)) == ((1, 0), (5, 0), (4, 0))


def test_a_later_call_cannot_post_what_an_earlier_one_left():
    alice, bob = account(10), account()
    held = opened(alice, 8)
    ledger.apply_all([post(held, bob, 1)])
    assert refused(post(held, bob, 1), void(held)) == ["hold_already_posted"] * 2


def test_a_void_returns_the_hold_and_is_remembered_by_its_id():
    alice, bob = account(10), account()
    held = opened(alice, 8)
    item = void(held, reference=uuid7())

    assert ledger.apply([item]) == ["ok"]

    assert balance(alice) == (10, 0)
    assert Transfer.objects.get(pk=held).state == "voided"
    stored = Transfer.objects.get(pk=item.id)
    assert (stored.state, stored.hold, stored.credit_id, stored.amount) == ("voided", held, None, 8)
    assert refused(item) == ["exists"]
    assert refused(void(held), post(held, bob, 1)) == ["hold_already_voided"] * 2


def test_a_hold_ends_once_within_one_call_too():
    alice, bob = account(20), account()
    first, second = opened(alice, 5), opened(alice, 5)
    codes = ledger.apply([post(first, bob, 1), void(first), void(second), post(second, bob, 1), void(second)])
    assert codes == ["ok", "hold_already_posted", "ok", "hold_already_voided", "hold_already_voided"]
    assert (balance(alice), balance(bob)) == ((19, 0), (1, 0))


def test_only_a_hold_can_be_posted_or_voided():
    alice, bob = account(10), account()
    moved = transfer(alice, bob, 1)
    held = opened(alice, 5)
    ledger.apply_all([moved, voided := void(held)])
    for strange in (moved.id, voided.id, uuid7(), None):
        assert refused(post(strange, bob, 1), void(strange)) == ["hold_unknown"] * 2


def test_a_hold_made_in_the_same_call_is_not_known_yet():
    alice, bob = account(10), account()
    item = hold(alice, 5)
    assert ledger.apply([item, post(item.id, bob, 5), void(item.id)]) == ["ok", "hold_unknown", "hold_unknown"]
    assert balance(alice) == (10, 5)


def test_what_a_void_frees_can_be_spent_in_the_same_call():
    alice, bob = account(10), account()
    held = opened(alice, 10)
    assert ledger.apply([transfer(alice, bob, 1), void(held), transfer(alice, bob, 10)]) == [
        "insufficient_funds",
        "ok",
        "ok",
    ]
    assert (balance(alice), balance(bob)) == ((0, 0), (10, 0))


# -- repeating ---------------------------------------------------------------------------------


def every_action(alice, bob):
    posted, voided = opened(alice, 5), opened(alice, 5)
    return [transfer(alice, bob, 1), hold(alice, 1), post(posted, bob, 1), void(voided)]


def test_a_repeated_item_is_known_and_applied_once():
    items = every_action(account(100), account())
    assert ledger.apply(items) == ["ok"] * 4
    assert refused(*items) == ["exists"] * 4


@pytest.mark.parametrize("field", ["debit", "credit", "amount", "kind", "reference"])
def test_a_transfers_id_with_another_field_is_refused(field):
    alice, bob = account(100), account()
    item = transfer(alice, bob, 1)
    ledger.apply_all([item])
    other = {"debit": outside(), "credit": outside(), "amount": 2, "kind": "other", "reference": uuid7()}
    assert refused(replace(item, **{field: other[field]})) == [f"exists_with_different_{field}"]


@pytest.mark.parametrize(
    ("field", "value"), [("debit", None), ("debit", -5), ("credit", None), ("amount", None), ("amount", -1)]
)
def test_a_known_id_with_a_senseless_field_is_no_repeat(field, value):
    alice, bob = account(100), account()
    item = transfer(alice, bob, 1)
    ledger.apply_all([item])
    assert refused(replace(item, **{field: value})) == [f"exists_with_different_{field}"]


def test_a_posts_id_with_another_hold_is_refused():
    alice, bob = account(100), account()
    first, second = opened(alice, 5), opened(alice, 5)
    item = post(first, bob, 1)
    ledger.apply_all([item])
    for other in (second, uuid7(), None):
        assert refused(replace(item, hold=other)) == ["exists_with_different_hold"]


def test_a_holds_id_with_another_account_or_amount_is_refused():
    alice, bob = account(100), account(100)
    item = hold(alice, 5)
    ledger.apply_all([item])
    codes = refused(replace(item, debit=bob), replace(item, amount=6), replace(item, reference=uuid7()))
    assert codes == [f"exists_with_different_{field}" for field in ("debit", "amount", "reference")]


def test_an_id_of_one_action_cannot_be_used_for_another():
    alice, bob = account(100), account()
    items = every_action(alice, bob)
    ledger.apply_all(items)
    free = opened(alice, 1)
    for item in items:
        others = [transfer(alice, bob, 1), hold(alice, 1), post(free, bob, 1), void(free)]
        rivals = [replace(other, id=item.id) for other in others if other.action != item.action]
        assert refused(*rivals) == ["exists_with_different_action"] * 3


def test_a_repeat_within_one_call_answers_as_a_later_call_would():
    alice, bob = account(10), account()
    item = transfer(alice, bob, 3)
    codes = ledger.apply([item, item, replace(item, amount=4), replace(item, action="hold", credit=None)])
    assert codes == ["ok", "exists", "exists_with_different_amount", "exists_with_different_action"]
    assert balance(bob) == (3, 0)


def test_an_id_that_was_refused_is_free_again():
    alice, bob = account(10), account()
    item = transfer(alice, bob, 11)
    smaller = replace(item, amount=10)
    assert ledger.apply([item, smaller, item]) == ["insufficient_funds", "ok", "exists_with_different_amount"]
    assert refused(smaller) == ["exists"]


# -- batches -----------------------------------------------------------------------------------


def test_one_bad_item_does_not_sink_the_others():
    alice, bob = account(10), account()
    good, late = transfer(alice, bob, 6), transfer(alice, bob, 4)
    codes = ledger.apply([good, transfer(alice, bob, 5), hold(alice, 0), void(uuid7()), late])
    assert codes == ["ok", "insufficient_funds", "amount_not_positive", "hold_unknown", "ok"]
    assert (balance(alice), balance(bob)) == ((0, 0), (10, 0))


def test_items_apply_in_the_order_given():
    alice, bob = account(), account()
    codes = ledger.apply([transfer(alice, bob, 5), transfer(outside(), alice, 5), transfer(alice, bob, 5)])
    assert codes == ["insufficient_funds", "ok", "ok"]


def test_an_empty_batch_is_an_empty_answer():
    assert refused() == []


def linked(*items, group=1):
    return [replace(item, link=group) for item in items]


def test_a_linked_group_is_applied_whole():
    alice, bob = account(10), account()
    assert ledger.apply(linked(transfer(alice, bob, 5), hold(alice, 5))) == ["ok", "ok"]
    assert (balance(alice), balance(bob)) == ((5, 5), (5, 0))


def test_a_linked_group_with_one_refusal_changes_nothing():
    alice, bob = account(10), account()
    held = opened(alice, 5)
    codes = refused(*linked(transfer(alice, bob, 5), post(held, bob, 5), transfer(alice, bob, 1), hold(alice, 0)))
    assert codes == ["linked_failed", "linked_failed", "insufficient_funds", "amount_not_positive"]


def test_a_failed_group_leaves_holds_and_funds_to_what_follows():
    alice, bob = account(10), account()
    held = opened(alice, 6)
    codes = ledger.apply(
        [
            *linked(post(held, bob, 6), transfer(alice, bob, 5)),
            *linked(void(held), transfer(alice, bob, 11), group=2),
            *linked(post(held, bob, 2), transfer(alice, bob, 8), group=3),
        ]
    )
    assert codes == ["linked_failed", "insufficient_funds"] * 2 + ["ok", "ok"]
    assert (balance(alice), balance(bob)) == ((0, 0), (10, 0))


def test_a_known_item_does_not_break_its_group():
    alice, bob = account(10), account()
    known = transfer(alice, bob, 1)
    ledger.apply_all([known])
    assert ledger.apply(linked(known, transfer(alice, bob, 2))) == ["exists", "ok"]
    assert refused(*linked(known, transfer(alice, bob, 20))) == ["exists", "insufficient_funds"]
    assert refused(*linked(replace(known, amount=2), transfer(alice, bob, 2))) == [
        "exists_with_different_amount",
        "linked_failed",
    ]


def test_a_repeat_inside_a_failed_group_was_not_applied_either():
    alice, bob = account(10), account()
    item = transfer(alice, bob, 1)
    codes = refused(*linked(item, item, transfer(alice, bob, 100)))
    assert codes == ["linked_failed", "linked_failed", "insufficient_funds"]


def test_a_repeat_of_an_earlier_group_stays_known_when_its_own_group_fails():
    alice, bob = account(10), account()
    item = transfer(alice, bob, 1)
    codes = ledger.apply([item, *linked(item, transfer(alice, bob, 100)), item])
    assert codes == ["ok", "exists", "insufficient_funds", "exists"]
    assert balance(bob) == (1, 0)


def test_only_neighbours_are_one_group():
    alice, bob = account(10), account()
    one, other, two = transfer(alice, bob, 1), transfer(alice, bob, 1), transfer(alice, bob, 100)
    assert ledger.apply([*linked(one), other, *linked(two)]) == ["ok", "ok", "insufficient_funds"]


# -- misuse ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "misuse",
    [
        {"action": "steal"},
        {"action": None},
        {"id": None},
        {"kind": None},
        {"hold": "held"},
        {"action": "hold"},
        {"action": "post", "hold": "held"},
        {"action": "void", "hold": "held"},
        {"action": "void", "hold": "held", "debit": None, "credit": None},
    ],
    ids=str,
)
def test_an_item_with_fields_of_another_action_is_a_fault_of_the_caller(misuse):
    alice, bob = account(10), account()
    held = opened(alice, 5)
    fields = misuse | ({"hold": held} if "hold" in misuse else {})
    before = books()
    with pytest.raises(DataError, match="item 2"), transaction.atomic():
        ledger.apply([transfer(alice, bob, 1), replace(transfer(alice, bob, 1), **fields)])
    assert books() == before


def test_an_unknown_account_kind_or_asset_is_refused():
    before = books()
    with pytest.raises(DataError, match="no account kind pocket"), transaction.atomic():
        ledger.account_id(owner=user("eve").pk, kind="pocket")
    db.rows("SET CONSTRAINTS ALL IMMEDIATE")
    with pytest.raises(IntegrityError), transaction.atomic():
        ledger.account_id(owner=user("eve").pk, kind="available", asset="DOGE")
    assert books() == before


# -- Python's door -----------------------------------------------------------------------------


def test_an_account_is_made_once():
    owner = user("alice").pk
    first = ledger.account_id(owner=owner, kind="available")
    assert ledger.account_id(owner=owner, kind="available") == first
    assert ledger.account_id(owner=owner, kind="maturing") != first
    assert ledger.account_id(owner=None, kind="fees", shard=3) == ledger.account_id(owner=None, kind="fees", shard=3)
    assert ledger.account_id(owner=None, kind="external", chain="a") != ledger.account_id(
        owner=None, kind="external", chain="b"
    )


REFUSALS = {
    "insufficient_funds": (Conflict, "payment.insufficient_funds"),
    "hold_unknown": (NotFound, "ledger.hold_unknown"),
    "account_unknown": (NotFound, "ledger.account_unknown"),
    "amount_not_positive": (Invalid, "ledger.amount_not_positive"),
    "amount_too_large": (Invalid, "ledger.amount_too_large"),
    "same_account": (Invalid, "ledger.same_account"),
    "asset_mismatch": (Invalid, "ledger.asset_mismatch"),
    "exceeds_hold": (Conflict, "ledger.exceeds_hold"),
    "hold_already_voided": (Conflict, "ledger.hold_already_voided"),
    "exists_with_different_amount": (Conflict, "ledger.exists_with_different_amount"),
}


@pytest.mark.parametrize("code", REFUSALS)
def test_a_refusal_has_its_error(code):
    error = ledger.refusal(code, transfer(1, 2, 3))
    assert (type(error), error.code) == REFUSALS[code]


def test_apply_all_undoes_what_came_before_the_refused_item():
    alice, bob = account(10), account()
    before = books()
    with pytest.raises(DomainError) as caught:
        ledger.apply_all([transfer(alice, bob, 10), transfer(alice, bob, 1)])
    assert caught.value.code == "payment.insufficient_funds"
    assert books() == before


def test_apply_all_may_be_repeated():
    items = every_action(account(100), account())
    ledger.apply_all(items)
    before = books()
    ledger.apply_all(items)
    assert books() == before
