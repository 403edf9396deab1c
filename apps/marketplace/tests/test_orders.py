"""The life of an order: escrowed, started, paid by the second, ended; exact to the unit."""

from datetime import datetime, timedelta

import pytest

from aitbc.accounts.keys import create_key, find_principal
from aitbc.core.clock import database_now
from aitbc.core.events import Event
from aitbc.core.ids import uuid7
from aitbc.core.testing import cast
from aitbc.core.testing.cast import AIT
from apps.gpu.models import Device, Miner, Occupancy
from apps.marketplace.models import Order
from apps.marketplace.receivers import look_at_orders
from apps.marketplace.tests import market
from apps.marketplace.tests.conftest import card, read
from apps.marketplace.tests.market import (
    MILLI,
    accept,
    act,
    age,
    dies,
    money,
    no,
    order,
    quote,
    run,
    running,
    seen,
    start,
    terms,
    units,
)  # fmt: skip


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
    """One card, a thousandth of an AIT a second."""
    return offer_of(mike)


def test_a_lease_from_quote_to_completion_pays_to_the_unit(alice, mike, offer):
    asked = quote(alice, offer_id=offer["id"])
    assert (units(asked["total"]), units(asked["breakdown"]["fee"]), asked["firm"]) == (100 * MILLI, 2.5 * MILLI, True)
    assert money(alice.id) == (AIT, MILLI)  # the deposit

    placed = accept(alice, asked)
    assert (placed["state"], placed["id"], money(alice.id)) == ("accepted", asked["id"], (AIT, 100 * MILLI))
    begun = start(mike, placed)
    assert begun["state"] == "active"
    assert money(alice.id) == (AIT - 100 * MILLI, 0)

    age(101, placed["id"])
    assert run() == {"completed": 1}
    done = seen(alice, placed)
    assert [units(done[name]) for name in ("paid", "fee", "refunded")] == [97.5 * MILLI, 2.5 * MILLI, 0]
    assert (done["state"], done["ended_at"], money(mike.id)) == ("completed", done["ends_at"], (97.5 * MILLI, 0))
    assert run() == {}


def test_the_device_is_let_once_and_free_after_the_end(alice, bob, mike, offer):
    placed = running(alice, mike, offer_id=offer["id"])
    problem = no(bob.post("/v1/marketplace/quotes", {"seconds": 5, "offer_id": offer["id"]}), 409, "quote.no_match")
    assert problem["reasons"] == {"offers": 1, "taken": 1, "excluded_by": {}}

    act(alice, placed, "cancel")
    assert quote(bob, offer_id=offer["id"])["firm"] is True


def test_a_missed_start_is_refunded_whole_and_says_why(alice, mike, offer):
    placed = order(alice, offer_id=offer["id"])
    age(121, placed["id"])
    no(mike.post(f"/v1/miners/orders/{placed['id']}/start"), 409, "order.missed")

    assert run() == {"missed": 1}
    gone = seen(alice, placed)
    assert (gone["state"], gone["ended_by"], units(gone["refunded"])) == ("missed", "provider", 100 * MILLI)
    assert "did not start within 120 seconds" in gone["reason"]
    assert money(alice.id) == (AIT, 0)


def test_cancelling_returns_the_configured_share_of_what_is_unused(alice, mike, offer):
    placed = running(alice, mike, offer_id=offer["id"])
    age(25, placed["id"])
    ended = act(alice, placed, "cancel", reason="enough")

    row = Order.objects.get(pk=placed["id"])
    used = (row.ended_at - row.started_at).total_seconds()
    spent = row.paid + row.fee
    unused = 100 * MILLI - int(used * 1000) * MILLI // 1000
    assert ended["state"] == "canceled"
    assert ended["reason"] == "enough"
    assert 25 <= used < 30
    assert abs(row.refunded - unused * 9 // 10) <= MILLI // 1000
    assert row.fee == -(-spent * 250 // 10000)
    before = money(alice.id), money(mike.id)
    assert act(alice, placed, "cancel") == ended
    assert (money(alice.id), money(mike.id)) == before


def test_before_its_start_the_providers_share_is_exact(alice, mike, offer):
    placed = order(alice, offer_id=offer["id"])
    ended = act(alice, placed, "cancel")

    assert [units(ended[name]) for name in ("paid", "fee", "refunded")] == [9.75 * MILLI, 0.25 * MILLI, 90 * MILLI]
    assert (money(alice.id), money(mike.id)) == ((AIT - 10 * MILLI, 0), (9.75 * MILLI, 0))


def test_a_provider_who_cancels_keeps_only_what_was_used(alice, mike, offer):
    placed = order(alice, offer_id=offer["id"])
    ended = act(mike, placed, "cancel")
    assert (ended["ended_by"], units(ended["refunded"]), money(alice.id)) == ("provider", 100 * MILLI, (AIT, 0))


def test_an_extension_costs_the_same_and_keeps_the_devices(alice, bob, mike, offer):
    placed = running(alice, mike, offer_id=offer["id"])
    longer = act(alice, placed, "extend", seconds=50)
    assert (longer["seconds"], units(longer["total"])) == (150, 150 * MILLI)
    span = Occupancy.objects.get(holder=placed["id"]).during
    assert span.upper == datetime.fromisoformat(longer["ends_at"])

    age(151, placed["id"])
    run()
    assert (seen(alice, placed)["state"], money(mike.id)) == ("completed", (146.25 * MILLI, 0))
    no(alice.post(f"/v1/marketplace/orders/{placed['id']}/extend", {"seconds": 5}), 409, "order.not_active")


def test_an_extension_into_anothers_time_changes_nothing(alice, bob, mike, offer):
    placed = running(alice, mike, offer_id=offer["id"])
    terms(offer, reserved_discount_bps=1000)
    later = Order.objects.get(pk=placed["id"]).ends_at
    quote(bob, offer_id=offer["id"], type="reserved", starts_at=later)

    before = money(alice.id)
    no(alice.post(f"/v1/marketplace/orders/{placed['id']}/extend", {"seconds": 5}), 409, "order.taken")
    assert (money(alice.id), seen(alice, placed)["seconds"]) == (before, 100)


def test_a_reserved_lease_is_prepaid_at_its_discount_and_begins_when_agreed(alice, mike, offer):
    no(
        alice.post("/v1/marketplace/quotes", {"seconds": 5, "offer_id": offer["id"], "type": "reserved"}),
        409,
        "quote.no_match",
    )
    terms(offer, reserved_discount_bps=2500)
    begins = database_now() + timedelta(hours=1)
    placed = order(alice, offer_id=offer["id"], type="reserved", starts_at=begins)
    assert (units(placed["total"]), money(alice.id)) == (75 * MILLI, (AIT, 75 * MILLI))

    no(mike.post(f"/v1/miners/orders/{placed['id']}/start"), 409, "order.too_early")
    age(3600, placed["id"])
    assert start(mike, placed)["state"] == "active"


def test_lists_show_each_party_its_own_with_sums(alice, bob, mike, offer):
    first = running(alice, mike, offer_id=offer["id"])
    age(101, first["id"])
    run()
    second = order(alice, offer_id=offer["id"])

    page = read(alice.get("/v1/marketplace/orders?limit=1"))
    assert [row["id"] for row in page["items"]] == [second["id"]]
    assert (page["sums"]["orders"], units(page["sums"]["total"]), units(page["sums"]["paid"])) == (
        2,
        200 * MILLI,
        97.5 * MILLI,
    )
    rest = read(alice.get(f"/v1/marketplace/orders?limit=1&cursor={page['next']}"))
    assert ([row["id"] for row in rest["items"]], rest["next"]) == ([first["id"]], None)
    sold = read(mike.get("/v1/marketplace/orders?side=provider&state=completed"))
    assert [row["id"] for row in sold["items"]] == [first["id"]]
    assert read(mike.get("/v1/miners/me/orders?state=accepted"))["items"] == [seen(mike, second)]
    assert read(bob.get("/v1/marketplace/orders"))["items"] == []
    no(bob.get(f"/v1/marketplace/orders/{second['id']}"), 404, "order.unknown")
    no(bob.post(f"/v1/marketplace/orders/{second['id']}/cancel"), 404, "order.unknown")


def test_a_dead_miner_ends_the_order_paid_until_it_was_last_heard(alice, mike, offer):
    placed = running(alice, mike, offer_id=offer["id"])
    age(50, placed["id"])
    dies(mike, ago=30)

    assert run() == {"failed": 1}
    row = Order.objects.get(pk=placed["id"])
    assert (row.state, row.ended_by, row.reason) == ("failed", "provider", "the miner left; the rest was refunded")
    used = (row.ended_at - row.started_at).total_seconds()
    assert 20 <= used < 25
    assert row.refunded == pytest.approx(100 * MILLI - used * MILLI, rel=1e-6)
    assert Occupancy.objects.get(holder=placed["id"]).during.upper == row.ended_at


def test_a_device_that_its_miner_gave_up_ends_the_order(alice, mike, offer):
    placed = running(alice, mike, offer_id=offer["id"])
    Device.objects.filter(miner_id=mike.miner_id).update(active=False)
    look_at_orders(Event(uuid7(), "gpu.miner_registered", "", 1, {"miner": str(mike.miner_id)}))
    assert run() == {"failed": 1}
    assert seen(alice, placed)["ended_by"] == "provider"


def test_a_miner_that_comes_back_in_time_keeps_its_order(alice, mike, offer):
    placed = running(alice, mike, offer_id=offer["id"])
    dies(mike)
    Miner.objects.update(state="online")
    assert run() == {"waiting": 1}
    assert seen(alice, placed)["state"] == "active"
    age(101)
    assert run() == {"completed": 1}


def test_after_a_failure_the_client_goes_on_elsewhere(alice, mike, offer, offer_of):
    nora = cast.seller("nora", device=card(), price="0.0009")
    placed = running(alice, mike, offer_id=offer["id"])
    dearer = offer_of(cast.seller("olga", device=card()), "0.002")
    no(alice.post(f"/v1/marketplace/orders/{placed['id']}/move"), 409, "order.not_movable")
    age(40, placed["id"])
    dies(mike)
    run()
    no(alice.post(f"/v1/marketplace/orders/{placed['id']}/move"), 409, "quote.no_match")  # only the dearer one
    cheaper = offer_of(nora, "0.0009")

    moved = act(alice, placed, "move", 201)
    assert (moved["offer_id"], moved["moved_from"], moved["seconds"]) == (cheaper["id"], placed["id"], 60)
    assert moved["offer_id"] != dearer["id"]
    assert seen(alice, placed)["moved_to"] == moved["id"]
    no(alice.post(f"/v1/marketplace/orders/{placed['id']}/move"), 409, "order.moved")


def test_failover_moves_by_itself(alice, mike, offer, offer_of):
    placed = running(alice, mike, offer_id=offer["id"], failover=True)
    other = offer_of(cast.seller("nora", device=card()))
    dies(mike)

    assert run() == {"failed": 1, "moved": 1}
    moved = seen(alice, {"id": seen(alice, placed)["moved_to"]})
    assert (moved["offer_id"], moved["state"], moved["failover"]) == (other["id"], "accepted", True)


def test_the_orders_stream_is_the_orders_alone(alice, mike, offer):
    placed = running(alice, mike, offer_id=offer["id"])
    for path, body in (("close", {}), ("deposits", {"amount": "1"})):
        assert (
            read(cast_money(alice).post(f"/v1/streams/{placed['stream']}/{path}", body), 409)["code"] == "stream.kept"
        )


def cast_money(person):
    token = create_key(user=person.user, name="money", scopes=("money:*",))[1]
    return cast.Person(person.user, token, find_principal(token))
