"""Rule 24: spot compensation comes out of the evictor's first window and never exceeds the fee on his lease."""

import pytest

from aitbc.core import db as database
from aitbc.core.testing import cast
from aitbc.core.testing.cast import AIT
from apps.marketplace.models import Order
from apps.marketplace.tests import market
from apps.marketplace.tests.conftest import OFFERS, price, read
from apps.marketplace.tests.market import (
    MILLI,
    age,
    bid,
    money,
    order,
    run,
    running,
    seen,
    set_parameters,
    start,
    terms,
    units,
)


@pytest.fixture
def bob(db):
    bob = cast.person("bob")
    cast.fund(bob.id, AIT)
    return bob


@pytest.fixture
def evicted(alice, bob, mike):
    """(Alice's spot lease, Bob's lease that took its place and ran for its first window)."""

    def evict(seconds, window=300):
        market.learn_to_age()
        set_parameters(spot_compensation_seconds=3600, spot_window_seconds=window)
        offer = read(mike.post(OFFERS, {"price": price("0.001")}), 201)
        terms(offer, spot_price=MILLI // 2)
        victim = running(alice, mike, offer_id=offer["id"], seconds=500, **bid("0.0006"))
        better = order(bob, offer_id=offer["id"], seconds=seconds)
        age(121)
        assert run() == {"evicted": 1}
        start(mike, better)
        age(window + 1, victim["id"], better["id"])
        for _ in range(3):
            run()
        return seen(alice, victim), seen(bob, better)

    yield evict
    market.assert_sound()


def test_compensation_is_the_fee_of_the_first_window_at_most(evicted, mike):
    victim, better = evicted(1000)
    paid = database.value("SELECT fees FROM trading_stream WHERE keeper = %s", (better["id"],))
    assert units(victim["compensation"]) == paid
    assert paid == pytest.approx(300 * MILLI * 250 // 10_000, rel=0.02)  # of 25 in the whole lease
    assert units(victim["compensation"]) < 3600 * 600 * MILLI // 1000  # what it would be without the rule


def test_compensation_never_exceeds_the_fee_on_a_short_lease(evicted, alice, bob, mike):
    victim, better = evicted(20)
    fee = Order.objects.get(pk=better["id"]).fee
    assert (units(victim["compensation"]), fee) == (fee, 20 * MILLI * 250 // 10_000)
    fees = database.value("SELECT sum(posted) FROM trading_account WHERE kind = 'fees'")
    everyone = sum(money(one.id)[0] for one in (alice, bob, mike))
    assert everyone + fees == 2 * AIT


def test_who_evicts_himself_gains_nothing(alice, mike):
    market.learn_to_age()
    set_parameters(spot_compensation_seconds=3600)
    offer = read(mike.post(OFFERS, {"price": price("0.001")}), 201)
    terms(offer, spot_price=MILLI // 2)
    victim = running(alice, mike, offer_id=offer["id"], seconds=500, **bid("0.0006"))
    better = order(alice, offer_id=offer["id"], seconds=100)
    age(121)
    run()
    start(mike, better)
    age(401, victim["id"], better["id"])
    run()
    fees = sum(Order.objects.values_list("fee", flat=True))
    assert units(seen(alice, victim)["compensation"]) <= Order.objects.get(pk=better["id"]).fee <= fees
