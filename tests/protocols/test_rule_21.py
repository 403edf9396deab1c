"""Rule 21: accepting an order reserves its highest credit out of the provider's bond, and only the rest can leave."""

import pytest

from aitbc.core import db as database
from aitbc.core.testing import cast
from aitbc.core.testing.cast import AIT
from aitbc.core.testing.snapshot import nothing_changes
from apps.gpu.tests.steps import refused
from apps.marketplace.tests.conftest import OFFERS, price, read
from apps.marketplace.tests.market import MILLI, bond, money, order, quote, run, units


@pytest.fixture
def offer(mike):
    cast.fund(mike.id, AIT)
    return read(mike.post(OFFERS, {"price": price("0.001"), "sla": {"availability": 0.99, "only": True}}), 201)


def test_the_bond_of_two_orders_is_never_promised_twice(alice, mike, nora, offer):
    bond(mike, 60 * MILLI)
    placed = order(alice, offer_id=offer["id"], seconds=100)
    assert units(placed["sla"]["max_credit"]) == 50 * MILLI
    assert money(mike.id, "bond") == (60 * MILLI, 50 * MILLI)

    with nothing_changes():
        refused(mike.post("/v1/bonds/withdraw", {"amount": "0.0100001"}), 409, "bond.reserved")


def test_no_free_bond_no_sla_offer(alice, mike, offer):
    bond(mike, 49 * MILLI)
    asked = quote(alice, offer_id=offer["id"], seconds=100)
    with nothing_changes():
        refused(alice.post(f"/v1/marketplace/quotes/{asked['id']}/accept"), 409, "order.no_bond")


def test_what_is_withdrawn_leaves_after_the_dispute_window(mike, offer):
    bond(mike, 49 * MILLI)
    read(mike.post("/v1/bonds/withdraw", {"amount": "0.049"}))
    refused(mike.post("/v1/bonds/withdraw", {"amount": "0.001"}), 409, "bond.reserved")
    assert (run(), money(mike.id, "bond")) == ({}, (49 * MILLI, 49 * MILLI))

    window = "SELECT (due_at - clock_timestamp()) FROM marketplace_bond_withdrawal"
    assert 590 < database.value(window).total_seconds() <= 600
    database.rows("UPDATE marketplace_bond_withdrawal SET due_at = clock_timestamp()")
    assert (run(), money(mike.id, "bond"), money(mike.id)) == ({"bond_withdrawn": 1}, (0, 0), (AIT, 0))
