"""Rule 22: open quotes are capped and hold a deposit, which who rarely accepts loses to the providers."""

import pytest

from aitbc.core.testing import cast
from aitbc.core.testing.cast import AIT
from aitbc.core.testing.snapshot import nothing_changes
from apps.gpu.tests.steps import refused
from apps.marketplace.tests import market
from apps.marketplace.tests.conftest import OFFERS, price, read
from apps.marketplace.tests.market import MILLI, act, age, money, quote, run, set_parameters
from apps.trading.services.audit import audit


@pytest.fixture
def offer(mike):
    market.learn_to_age()
    return read(mike.post(OFFERS, {"price": price("0.001")}), 201)


def expire(client, offer, times):
    done = []
    for _ in range(times):
        quote(client, offer_id=offer["id"])
        age(61)
        done += run()
    return done


def test_open_quotes_of_a_client_are_capped(alice, mike, nora, offer):
    read(nora.post(OFFERS, {"price": price("0.001")}), 201)
    set_parameters(quotes_open=1)
    quote(alice)
    with nothing_changes():
        refused(alice.post("/v1/marketplace/quotes", {"seconds": 5}), 409, "quote.too_many")


def test_who_never_accepts_loses_the_deposit_to_the_provider_from_the_fifth_on(alice, mike, offer):
    assert expire(alice, offer, 6) == ["quote_expired"] * 4 + ["quote_forfeited"] * 2
    assert (money(alice.id), money(mike.id)) == ((AIT - 2 * MILLI, 0), (2 * MILLI, 0))
    assert audit() == []


def test_who_accepts_often_enough_keeps_it(alice, mike, offer):
    for _ in range(2):
        act(alice, market.order(alice, offer_id=offer["id"]), "cancel")
    paid = AIT - money(alice.id)[0]
    assert expire(alice, offer, 6) == ["quote_expired"] * 6  # six of eight are not above four fifths
    assert money(alice.id) == (AIT - paid, 0)


def test_a_deposit_that_cannot_be_held_is_no_quote(offer):
    poor = cast.person("poor")
    with nothing_changes():
        refused(poor.post("/v1/marketplace/quotes", {"seconds": 5}), 409, "payment.insufficient_funds")
