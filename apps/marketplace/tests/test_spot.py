"""Spot: outbid -> notice, hook, resume elsewhere, compensation booked."""

import pytest

from aitbc.core.clock import database_now
from aitbc.core.models import OutboxEvent
from aitbc.core.testing import cast
from aitbc.core.testing.cast import AIT
from aitbc.core.testing.snapshot import nothing_changes
from aitbc.webhooks.models import Endpoint
from apps.gpu.models import Occupancy
from apps.marketplace.models import Order
from apps.marketplace.tests import market
from apps.marketplace.tests.conftest import card
from apps.marketplace.tests.market import (
    MILLI,
    accept,
    act,
    age,
    bid,
    money,
    no,
    order,
    quote,
    run,
    running,
    seen,
    set_parameters,
    start,
    terms,
    units,
)

QUOTES = "/v1/marketplace/quotes"


@pytest.fixture(autouse=True)
def _sound(db):
    market.learn_to_age()
    yield
    market.assert_sound()


@pytest.fixture
def bob(db):
    bob = cast.person("bob")
    cast.fund(bob.id, AIT)
    return bob


@pytest.fixture
def offer(mike, offer_of):
    """At a thousandth of an AIT a second; as spot from half of that on."""
    offer = offer_of(mike)
    terms(offer, spot_price=MILLI // 2)
    return offer


def test_a_bid_below_the_floor_is_no_match_and_one_above_is_what_it_costs(alice, offer):
    problem = no(alice.post(QUOTES, {"seconds": 5, "offer_id": offer["id"]} | bid("0.0004")), 409, "quote.no_match")
    assert problem["reasons"]["excluded_by"] == {"type": 1}
    assert units(quote(alice, offer_id=offer["id"], **bid("0.0006"))["total"]) == 60 * MILLI


def test_only_a_higher_bid_or_an_order_that_is_not_spot_takes_the_devices(alice, bob, mike, offer):
    running(alice, mike, offer_id=offer["id"], **bid("0.0006"))
    for ask in (bid("0.0006"), bid("0.0005")):
        no(bob.post(QUOTES, {"seconds": 5, "offer_id": offer["id"]} | ask), 409, "quote.no_match")
    assert quote(bob, offer_id=offer["id"], **bid("0.0007"))["firm"] is False
    assert quote(bob, offer_id=offer["id"])["firm"] is False


def test_outbid_means_notice_a_hook_the_end_and_compensation(alice, bob, mike, offer):
    Endpoint.objects.create(
        owner=alice.user, url="https://alice.example/hook", events=[], nonce=b"x" * 16, created_at=database_now()
    )
    victim = running(alice, mike, offer_id=offer["id"], seconds=1000, **bid("0.0006"))
    better = order(bob, offer_id=offer["id"], seconds=1000, **bid("0.0008"))

    told = seen(alice, victim)
    assert (told["state"], told["reason"], told["evicted_by"]) == ("notice", "a higher bid takes the devices", True)
    assert better["starts_at"] >= told["ends_at"]
    hook = OutboxEvent.objects.get(event="order.notice").payload
    assert hook["owners"][0] == str(alice.id)
    assert (hook["data"]["id"], hook["data"]["ends_at"][:19]) == (victim["id"], told["ends_at"][:19])
    no(mike.post(f"/v1/miners/orders/{better['id']}/start"), 409, "order.too_early")

    age(120)
    assert run() == {"evicted": 1}
    row = Order.objects.get(pk=victim["id"])
    assert (row.state, row.paid + row.fee) == ("evicted", pytest.approx(120 * 600 * MILLI // 1000, rel=0.05))
    spans = [span.during for span in Occupancy.objects.order_by("during")]
    assert spans[0].upper == spans[1].lower  # nothing between them, nothing twice

    start(mike, better)
    before = money(alice.id)[0]
    assert run() == {}  # the first window is not over
    age(300, victim["id"], better["id"])
    run()
    assert run().get("compensated", 0) in (0, 1)
    evicted, fees = seen(alice, victim), Order.objects.get(pk=better["id"])
    fee_of_window = 300 * 800 * MILLI // 1000 * 250 // 10000
    assert units(evicted["compensation"]) == pytest.approx(fee_of_window, rel=0.05)
    assert units(evicted["compensation"]) <= 60 * 600 * MILLI // 1000
    assert money(alice.id)[0] - before == units(evicted["compensation"])
    assert fees.state == "active"


def test_an_evicted_order_goes_on_at_another_spot_offer_that_its_bid_fits(alice, bob, mike, offer, offer_of):
    victim = running(alice, mike, offer_id=offer["id"], seconds=1000, failover=True, **bid("0.0006"))
    other = offer_of(cast.seller("nora", device=card()))
    order(bob, offer_id=offer["id"])
    age(121, victim["id"])
    assert run()["evicted"] == 1
    assert seen(alice, victim)["moved_to"] is None  # the other is not sold as spot

    terms(other, spot_price=MILLI // 2)
    age(11, victim["id"])
    assert run() == {"moved": 1}
    resumed = seen(alice, {"id": seen(alice, victim)["moved_to"]})
    assert (resumed["offer_id"], resumed["type"], resumed["moved_from"]) == (other["id"], "spot", victim["id"])
    assert 870 <= resumed["seconds"] <= 880


def test_of_two_evictors_one_wins(alice, bob, mike, offer):
    carol = cast.person("carol")
    cast.fund(carol.id, AIT)
    running(alice, mike, offer_id=offer["id"], **bid("0.0006"))
    first, second = quote(bob, offer_id=offer["id"]), quote(carol, offer_id=offer["id"])
    accept(bob, first)
    with nothing_changes():
        no(carol.post(f"{QUOTES}/{second['id']}/accept"), 409, "quote.taken")


def test_a_spot_order_that_was_not_started_goes_at_once_and_whole(alice, bob, mike, offer):
    victim = order(alice, offer_id=offer["id"], **bid("0.0006"))
    better = order(bob, offer_id=offer["id"])
    assert run() == {"evicted": 1}
    gone = seen(alice, victim)
    assert (gone["state"], units(gone["refunded"]), money(alice.id)) == ("evicted", 60 * MILLI, (AIT, 0))
    age(121)
    assert run()["missed"] == 1  # its evictor never started and paid no fee
    assert (units(seen(alice, victim)["compensation"]), seen(bob, better)["state"]) == (0, "missed")


def test_who_is_under_notice_may_leave_and_pays_for_no_unused_time(alice, bob, mike, offer):
    set_parameters(cancel_refund_bps=0)
    victim = running(alice, mike, offer_id=offer["id"], seconds=1000, **bid("0.0006"))
    order(bob, offer_id=offer["id"])
    left = act(alice, victim, "cancel")
    assert (left["state"], units(left["refunded"])) == ("canceled", pytest.approx(600 * MILLI, rel=0.01))
