"""Bonds behind what providers promise, and the credits that availability costs them."""

import pytest

from aitbc.core import db as database
from aitbc.core import ticks
from aitbc.core.testing import cast
from aitbc.core.testing.cast import AIT
from aitbc.core.testing.snapshot import nothing_changes
from apps.marketplace.models import Order
from apps.marketplace.tests import market
from apps.marketplace.tests.conftest import read
from apps.marketplace.tests.market import (
    MILLI,
    act,
    age,
    beats,
    bond,
    dies,
    money,
    no,
    order,
    quote,
    run,
    running,
    seen,
    set_parameters,
    units,
)

SLA = {"availability": 0.99}


@pytest.fixture(autouse=True)
def _sound(db):
    market.learn_to_age()
    yield
    market.assert_sound()


@pytest.fixture
def offer(mike, offer_of):
    cast.fund(mike.id, AIT)
    return offer_of(mike, sla=SLA)


def ended(alice, mike, good):
    """A lease of ten minutes that ran to its end, with signed beats in these of its minutes."""
    placed = running(alice, mike, seconds=600)
    beats(mike, placed, good)
    age(601)
    assert run() == {"completed": 1}
    return placed


def test_an_order_reserves_its_highest_credit_and_only_the_rest_can_leave(alice, mike, offer):
    bond(mike, 60 * MILLI)
    placed = order(alice, offer_id=offer["id"])
    assert (placed["sla"]["availability"], units(placed["sla"]["max_credit"])) == (0.99, 50 * MILLI)
    shown = read(mike.get("/v1/bonds"))
    assert [units(shown[name]) for name in ("amount", "free", "reserved")] == [60 * MILLI, 10 * MILLI, 50 * MILLI]

    with nothing_changes():
        no(mike.post("/v1/bonds/withdraw", {"amount": "0.011"}), 409, "bond.reserved")
    waiting = read(mike.post("/v1/bonds/withdraw", {"amount": "0.01"}))
    assert [units(row["amount"]) for row in waiting["withdrawals"]] == [10 * MILLI]
    assert (run(), money(mike.id)[0]) == ({}, AIT - 60 * MILLI)  # not before the window is over
    database.rows("UPDATE marketplace_bond_withdrawal SET due_at = clock_timestamp()")
    assert (run(), money(mike.id)[0]) == ({"bond_withdrawn": 1}, AIT - 50 * MILLI)
    assert money(mike.id, "bond") == (50 * MILLI, 50 * MILLI)


def test_without_a_free_bond_it_is_sold_without_sla_or_not_at_all(alice, mike, offer):
    assert order(alice, offer_id=offer["id"])["sla"] is None
    act(alice, {"id": Order.objects.get().pk}, "cancel")

    read(mike.patch(f"/v1/marketplace/offers/{offer['id']}", {"sla": SLA | {"only": True}}))
    asked = quote(alice, offer_id=offer["id"])
    with nothing_changes():
        no(alice.post(f"/v1/marketplace/quotes/{asked['id']}/accept"), 409, "order.no_bond")


@pytest.mark.parametrize(
    ("good", "credit"), [(range(10), 0), (range(9), 50), ([0, 1, 2], 50)], ids=["all", "nine of ten", "three of ten"]
)
def test_the_credit_follows_the_minutes_that_were_signed(alice, mike, offer, good, credit):
    bond(mike, AIT // 2)
    placed = ended(alice, mike, good)
    before = money(alice.id)[0]
    assert run() == {}  # not before the last signatures are in

    age(120)
    assert run() == {"credited": 1}
    share = {0: 0, 50: 600 * MILLI * 50 // 100}[credit]
    assert database.value("SELECT order_sla(%s)", (placed["id"],)) == share
    assert (money(alice.id)[0] - before, units(seen(alice, placed)["sla"]["credit"])) == (share, share)
    assert money(mike.id, "bond") == (AIT // 2 - share, 0)
    assert run() == {}


@pytest.mark.parametrize(
    ("availability", "broken", "share"),
    [
        (10000, False, 0), (9900, False, 0), (9899, False, 2500), (9500, False, 2500), (9499, False, 5000),
        (0, True, 5000), (None, True, 1000), (None, False, 0), (9900, True, 1000),
    ],
)  # fmt: skip
def test_the_table_of_credits(db, availability, broken, share):
    assert database.value("SELECT sla_share(%s::int, 9900, %s)", (availability, broken)) == share
    assert database.value("SELECT sla_share(9950, 9990, false)") == 1000


def test_unsigned_minutes_and_those_after_the_end_do_not_count(alice, mike, offer):
    bond(mike, AIT // 2)
    placed = ended(alice, mike, range(10))
    database.rows("UPDATE gpu_heartbeat SET signature = '' WHERE sequence > 1000008")  # the last two
    assert database.rows("SELECT * FROM order_minutes((SELECT o FROM marketplace_order o))") == [(10, 8)]
    database.rows("UPDATE gpu_heartbeat SET signature = '0x1' WHERE sequence = 1000010")  # covers the one before
    assert database.rows("SELECT * FROM order_minutes((SELECT o FROM marketplace_order o))") == [(10, 10)]
    assert placed["id"]


def test_an_outage_of_the_platform_counts_for_nobody(alice, mike, offer):
    ticks.tick()
    database.rows("UPDATE core_platform_tick SET at = at - interval '1 minute'")
    ticks.tick()
    bond(mike, AIT // 2)
    ended(alice, mike, range(8))
    database.rows(
        """UPDATE core_platform_outage SET began_at = started_at + interval '8 minutes',
                  ended_at = started_at + interval '9 minutes 1 second' FROM marketplace_order o"""
    )
    assert database.rows("SELECT * FROM order_minutes((SELECT o FROM marketplace_order o))") == [(8, 8)]


def test_a_dead_providers_bond_pays_and_never_more_than_it_reserved(alice, mike, offer):
    bond(mike, 300 * MILLI)
    placed = running(alice, mike, offer_id=offer["id"], seconds=600)
    beats(mike, placed, [0])
    age(120, placed["id"])
    dies(mike)
    assert run() == {"failed": 1, "credited": 1}
    ended = seen(alice, placed)
    assert (units(ended["sla"]["credit"]), money(mike.id, "bond")) == (300 * MILLI, (0, 0))


def test_a_missed_start_costs_a_tenth(alice, mike, offer):
    bond(mike, 300 * MILLI)
    placed = order(alice, offer_id=offer["id"])
    age(121, placed["id"])
    assert run() == {"missed": 1, "credited": 1}
    assert money(alice.id) == (AIT + 10 * MILLI, 0)


def test_a_start_missed_in_an_outage_of_the_platform_is_given_its_time_again(alice, mike, offer):
    set_parameters(order_start_seconds=120)
    bond(mike, 300 * MILLI)
    placed = order(alice, offer_id=offer["id"])
    age(121, placed["id"])
    database.rows(
        """INSERT INTO core_platform_outage (process, began_at, ended_at)
           SELECT 'relay', t - interval '90 seconds', t - interval '10 seconds' FROM clock_timestamp() t"""
    )
    assert run() == {"postponed": 1}
    assert seen(alice, placed)["state"] == "accepted"
    assert market.start(mike, placed)["state"] == "active"
