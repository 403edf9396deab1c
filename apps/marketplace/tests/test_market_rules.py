"""Rules of the market: each operator, blocked listings and changes, flags, bans, and conditions that do not fit."""

import pytest
from django.core.exceptions import ValidationError
from django.db import IntegrityError, transaction
from django.test import Client

from aitbc.core import db
from aitbc.core.testing.snapshot import nothing_changes
from apps.marketplace import tasks
from apps.marketplace.models import Offer, OfferTransition, Rule, Strategy
from apps.marketplace.tests.conftest import OFFERS, price, read
from apps.marketplace.tests.test_strategies import due, strategy_of

pytestmark = pytest.mark.django_db


def rule(field="price", operator="gt", value=0.01, effect="restriction", **more):
    facts = {"name": f"{field} {operator}", "category": "pricing", "message": "too dear"}
    made = Rule(field=field, operator=operator, value=value, effect=effect, **(facts | more))
    made.full_clean()
    made.save()
    return made


def holds(offer_id, made) -> bool:
    return db.value(
        """SELECT market_rule_holds(r, offer_facts(o)) FROM marketplace_rule r, marketplace_offer o
            WHERE r.id = %s AND o.id = %s""",
        (made.pk, offer_id),
    )


OPERATORS = [
    ("price", "eq", 0.004, True), ("price", "ne", 0.004, False), ("price", "lt", 0.004, False),
    ("price", "le", 0.004, True),
    ("price", "gt", 0.0039, True), ("price", "ge", 0.0041, False), ("price", "in", [1, 0.004], True),
    ("model", "eq", "NVIDIA H200", True), ("model", "in", ["NVIDIA H200", "x"], True),
    ("model", "not_in", ["NVIDIA H200"], False),
    ("region", "ne", "us", True), ("kinds", "contains", "bench.matmul", True),
    ("kinds", "lacks", "bench.matmul", False),
    ("kinds", "lacks", "vision.ocr", True), ("verified", "eq", False, True), ("memory_gb", "ge", 141, True),
    ("device_count", "lt", 2, True), ("seller_days", "lt", 1, True), ("price_to_median", "gt", 0, False),
]  # fmt: skip


def test_each_operator_says_what_it_says(mike, offer_of):
    offer = offer_of(mike, "0.004")

    for field, operator, value, expected in OPERATORS:
        made = rule(field, operator, value, "warning", name=f"{field} {operator} {value}")
        assert holds(offer["id"], made) is expected, made.name


MISFITS = [
    ("price", "gt", "1"), ("price", "contains", 1), ("price", "like", 1), ("secret", "eq", 1),
    ("kinds", "eq", ["x"]),
    ("model", "in", "x"), ("model", "in", [1]), ("price", "in", [1, "2"]), ("verified", "gt", True),
    ("price", "eq", "1); DROP TABLE marketplace_rule; --"),
]  # fmt: skip


def test_a_condition_that_does_not_fit_is_refused_by_the_form_and_by_the_database(db):
    facts = {"name": "x", "category": "pricing", "effect": "ban", "message": "x"}
    with nothing_changes():
        for field, operator, value in MISFITS:
            with pytest.raises(ValidationError):
                rule(field, operator, value)
            with pytest.raises(IntegrityError), transaction.atomic():
                Rule(field=field, operator=operator, value=value, **facts).save()


@pytest.mark.parametrize("effect", ["restriction", "ban"])
def test_an_active_rule_blocks_listing_and_changes_and_is_named(mike, offer_of, effect):
    offer = offer_of(mike, "0.004")
    path = f"{OFFERS}/{offer['id']}"
    made = rule(effect=effect, name="No gouging")

    with nothing_changes():
        refused = read(mike.patch(path, {"price": price("0.02")}), 422)
    assert (refused["code"], refused["detail"]) == ("offer.rule", 'rule "No gouging": too dear')
    read(mike.patch(path, {"price": price("0.005")}))
    read(mike.patch(path, {"price": price("0.02"), "state": "paused"}))
    with nothing_changes():
        assert read(mike.patch(path, {"state": "listed"}), 422)["code"] == "offer.rule"
    Rule.objects.filter(pk=made.pk).update(active=False)
    read(mike.patch(path, {"state": "listed"}))


def test_a_forbidden_offer_cannot_be_listed(mike):
    rule()

    with nothing_changes():
        assert read(mike.post(OFFERS, {"price": price("0.02")}), 422)["code"] == "offer.rule"
    read(mike.post(OFFERS, {"price": price("0.01")}), 201)


def test_a_warning_lets_the_offer_in_and_flags_it(mike, offer_of):
    rule(effect="warning", name="Dear")
    offer = offer_of(mike, "0.02")

    shown = read(Client().get(f"{OFFERS}/{offer['id']}/standing"))

    assert shown["flags"] == [{"rule": "Dear", "category": "pricing", "effect": "warning", "message": "too dear"}]
    assert offer["state"] == "listed"
    assert tasks.watch() >= 0
    assert Offer.objects.get().state == "listed"


def test_a_ban_takes_what_is_listed_off_the_market_and_a_restriction_does_not(mike, nora, offer_of):
    dear, other = offer_of(mike, "0.02"), offer_of(nora, "0.02")
    rule(value=0.03)
    rule("region", "eq", "us", "ban", name="No US", category="compliance")

    tasks.watch()
    tasks.watch()

    assert Offer.objects.get(pk=dear["id"]).state == "listed"
    assert Offer.objects.get(pk=other["id"]).state == "suspended"
    last = OfferTransition.objects.filter(offer=other["id"]).last()
    assert (last.after, last.reason, last.note, last.by_id) == ("suspended", "platform", "rule No US", None)
    assert OfferTransition.objects.filter(offer=other["id"]).count() == 2


def test_a_strategy_does_not_pass_a_rule(mike, offer_of):
    offer = offer_of(mike, "0.009")
    strategy_of(mike, offer, strategy="fixed", base={"amount": "0.0105", "asset": "AIT"}, step_bps=5000)
    rule()

    assert tasks.apply_strategies() == {"ruled": 1}
    assert Offer.objects.get().price == 9 * 10**15
    Rule.objects.update(active=False)
    due()
    assert tasks.apply_strategies() == {"changed": 1}
    assert Offer.objects.get().price == 105 * 10**14
    assert Strategy.objects.count() == 1
