"""Quotes: the best offer, its devices kept, a deposit that honest clients get back."""

import pytest

from aitbc.core.testing import cast
from aitbc.core.testing.cast import AIT
from aitbc.core.testing.snapshot import nothing_changes
from apps.gpu.models import Occupancy
from apps.marketplace.models import Quote
from apps.marketplace.tests import market
from apps.marketplace.tests.conftest import card, read
from apps.marketplace.tests.market import MILLI, accept, age, money, no, quote, run, set_parameters, terms, units

QUOTES = "/v1/marketplace/quotes"


@pytest.fixture(autouse=True)
def _sound(db):
    market.learn_to_age()
    yield
    market.assert_sound()


def test_the_cheapest_then_the_oldest_fitting_offer_is_quoted(alice, mike, nora, offer_of):
    dear = offer_of(mike, "0.002")
    first = offer_of(cast.seller("olga", device=card()), "0.001")
    second = offer_of(cast.seller("paul", device=card()), "0.001")
    offer_of(nora, "0.0001")  # another model

    wanted = {"model": "nvidia h200", "min_vram_gb": 100, "region": "eu", "devices": 1}
    found = [quote(alice, constraints=wanted)["offer_id"] for _ in range(3)]
    assert found == [first["id"], second["id"], dear["id"]]


def test_no_match_counts_what_each_wish_excludes(alice, mike, nora, offer_of):
    offer_of(mike, "0.002")
    offer_of(nora, "0.0001")
    wanted = {"model": "NVIDIA H200", "max_price": {"amount": "0.001"}, "verified": True}
    with nothing_changes():
        problem = no(alice.post(QUOTES, {"seconds": 5, "constraints": wanted}), 409, "quote.no_match")
    assert problem["reasons"] == {"offers": 2, "taken": 0, "excluded_by": {"max_price": 1, "model": 1, "verified": 2}}


def test_limits_of_the_offer_hold(alice, mike, offer_of):
    offer = offer_of(mike)
    terms(offer, min_seconds=10, max_seconds=100)
    for seconds in (9, 101):
        problem = no(alice.post(QUOTES, {"seconds": seconds, "offer_id": offer["id"]}), 409, "quote.no_match")
        assert problem["reasons"]["excluded_by"] == {"seconds": 1}
    assert quote(alice, offer_id=offer["id"], seconds=100)["seconds"] == 100
    no(alice.post(QUOTES, {"seconds": 5, "offer_id": str(alice.id)}), 404, "offer.unknown")
    no(mike.post(QUOTES, {"seconds": 50, "offer_id": offer["id"]}), 409, "quote.no_match")  # his own


def test_the_devices_of_a_quote_are_kept_long_enough_to_start_at_the_last_moment(alice, mike, offer_of):
    asked = quote(alice, offer_id=offer_of(mike)["id"])
    span = Occupancy.objects.get(holder=asked["id"]).during
    assert (span.upper - span.lower).total_seconds() == 60 + 120 + 100
    assert (asked["sla_availability"], asked["start_deadline_seconds"]) == (None, 120)


def test_a_quote_without_the_money_for_its_deposit_writes_nothing(mike, offer_of):
    poor = cast.person("poor")
    offer = offer_of(mike)
    with nothing_changes():
        no(poor.post(QUOTES, {"seconds": 5, "offer_id": offer["id"]}), 409, "payment.insufficient_funds")


def test_an_order_without_the_money_leaves_its_quote_open(mike, offer_of):
    poor = cast.person("poor")
    cast.fund(poor.id, 2 * MILLI)
    asked = quote(poor, offer_id=offer_of(mike)["id"])
    with nothing_changes():
        no(poor.post(f"{QUOTES}/{asked['id']}/accept"), 409, "payment.insufficient_funds")
    assert read(poor.get(f"{QUOTES}/{asked['id']}"))["state"] == "open"


def test_an_expired_quote_returns_its_deposit_and_its_devices(alice, mike, offer_of):
    offer = offer_of(mike)
    asked = quote(alice, offer_id=offer["id"])
    assert money(alice.id) == (AIT, units(asked["deposit"]))
    age(61)
    no(alice.post(f"{QUOTES}/{asked['id']}/accept"), 409, "quote.expired")

    assert run() == {"quote_expired": 1}
    assert money(alice.id) == (AIT, 0)
    no(alice.post(f"{QUOTES}/{asked['id']}/accept"), 409, "quote.expired")
    assert quote(alice, offer_id=offer["id"])["firm"] is True


def test_a_quote_is_its_clients_and_accepted_once(alice, mallory, mike, offer_of):
    asked = quote(alice, offer_id=offer_of(mike)["id"])
    no(mallory.get(f"{QUOTES}/{asked['id']}"), 404, "quote.unknown")
    no(mallory.post(f"{QUOTES}/{asked['id']}/accept"), 404, "quote.unknown")
    accept(alice, asked)
    with nothing_changes():
        no(alice.post(f"{QUOTES}/{asked['id']}/accept"), 409, "quote.accepted")


def test_a_quote_is_repeatable_by_its_key(alice, mike, offer_of):
    offer = offer_of(mike)
    body = {"seconds": 100, "offer_id": offer["id"]}
    first, second = (alice.post(QUOTES, body, idempotency_key="one") for _ in range(2))
    assert read(first, 201) == read(second, 201)
    assert Quote.objects.count() == 1


@pytest.fixture
def mallory(db):
    mallory = cast.person("mallory")
    cast.fund(mallory.id, AIT)
    return mallory


def test_a_job_kind_must_be_run_by_the_offer(alice, mike, offer_of):
    offer = offer_of(mike)
    problem = no(
        alice.post(QUOTES, {"seconds": 5, "kind": "text.embed", "offer_id": offer["id"]}), 409, "quote.no_match"
    )
    assert problem["reasons"]["excluded_by"] == {"kind": 1}
    set_parameters(quotes_open=1)
    quote(alice, kind="bench.matmul", offer_id=offer["id"])
    no(alice.post(QUOTES, {"seconds": 5}), 409, "quote.too_many")
