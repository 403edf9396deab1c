"""Rule 23: every bidder of a sealed auction holds its uniform ceiling; an unrevealed bid forfeits a stated deposit."""

import logging

import pytest
from django.db import connection

from aitbc.core import db as database
from aitbc.core.ids import uuid7
from aitbc.core.testing import cast
from aitbc.core.testing.cast import AIT
from aitbc.core.testing.snapshot import nothing_changes
from apps.gpu.tests.steps import refused
from apps.marketplace.tests import market
from apps.marketplace.tests.conftest import OFFERS, card, price, read
from apps.marketplace.tests.market import MILLI, money
from apps.marketplace.tests.tenders import AUCTIONS, bid, close, commitment, reveal, shown, states, tender, try_to

DEPOSIT = 2 * MILLI
PRICES = ("0.000712345", "0.000854321")
SALTS = ("0x" + "c0ffee17" * 8, "0x" + "feedbee5" * 8)
UNITS = ("712345000000000", "854321000000000")


@pytest.fixture
def sellers(db):
    market.learn_to_age()
    found = [cast.seller(name, device=card()) for name in ("mike", "nora")]
    for one in found:
        cast.fund(one.id, AIT)
    yield found
    market.assert_sound()


@pytest.fixture
def auction(alice):
    return tender(alice, sealed=True)


@pytest.fixture
def bids(sellers, auction):
    """Mike's and Nora's, each sent with an Idempotency-Key."""
    offers = [read(one.post(OFFERS, {"price": price("0.001")}), 201) for one in sellers]
    found = []
    for seller, offer, amount, salt in zip(sellers, offers, PRICES, SALTS, strict=True):
        body = {"offer_id": offer["id"], "commitment": commitment(auction, seller, amount, salt)}
        answer = seller.post(f"{AUCTIONS}/{auction['id']}/bids", body, idempotency_key=str(uuid7()))
        found.append(read(answer, 201))
    return found


def dump():
    """Every column of every row of every table, as text."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT format('%I.%I', schemaname, tablename) FROM pg_tables WHERE schemaname = 'public'")
        tables = [name for (name,) in cursor.fetchall()]
        assert {"public.core_idempotency", "public.core_outbox", "public.marketplace_bid"} <= set(tables)
        rows = []
        for table in tables:
            cursor.execute(f"SELECT row_to_json(t)::text || t::text FROM {table} t")
            rows += [row for (row,) in cursor.fetchall()]
    return "\n".join(rows)


def secrets():
    return [*PRICES, *UNITS, *(salt[2:] for salt in SALTS)]


def test_every_bidder_holds_the_same_whatever_he_bids(sellers, auction, bids):
    assert [money(one.id) for one in sellers] == [(AIT, 100 * MILLI)] * 2
    assert {made["hold"]["amount"] for made in bids} == {auction["total"]["amount"]} == {auction["hold"]["amount"]}


def test_before_closing_no_table_statement_answer_or_log_has_a_price_or_a_salt(
    sellers, auction, bids, monkeypatch, caplog, capfd
):
    caplog.set_level(logging.DEBUG)
    statements, rows = [], database.rows
    monkeypatch.setattr(
        database, "rows", lambda *given, **named: statements.append(repr(given)) or rows(*given, **named)
    )
    for seller, made, amount, salt in zip(sellers, bids, PRICES, SALTS, strict=True):
        said = {"price": {"amount": amount}, "salt": salt}
        refused(try_to(seller, auction, "reveal", made, **said), 409, "auction.open")  # his own mistake
        path = f"{AUCTIONS}/{auction['id']}/bids"
        for mistake in ({}, {"commitment": made["commitment"]}):
            body = {"offer_id": made["offer_id"], "price": {"amount": amount}} | mistake
            refused(seller.post(path, body, idempotency_key=str(uuid7())), 422, "bid.sealed")

    seen = dump() + repr(shown(auction)) + caplog.text + "".join(capfd.readouterr()) + "\n".join(statements)
    assert "auction_takes" in seen
    assert "auction_reveals" in seen
    assert bids[0]["commitment"][2:] in seen
    assert [secret for secret in secrets() if secret in seen] == []

    close(auction)
    for seller, made, amount, salt in zip(sellers, bids, PRICES, SALTS, strict=True):
        reveal(seller, auction, made, amount, salt)
    assert [secret for secret in (*UNITS, *(salt[2:] for salt in SALTS)) if secret not in dump()] == []


def test_an_unrevealed_bid_forfeits_the_deposit_to_the_client_and_the_rest_returns(alice, sellers, auction, bids):
    mike, nora = sellers
    close(auction)
    reveal(nora, auction, bids[1], PRICES[1], SALTS[1])
    close(auction, 600)
    assert states(auction) == {bids[0]["id"]: "forfeited", bids[1]["id"]: "won"}
    total = int(UNITS[1]) * 100
    assert [money(one.id) for one in (alice, mike, nora)] == [(AIT + DEPOSIT, total), (AIT - DEPOSIT, 0), (AIT, 0)]


def test_who_can_pay_his_price_but_not_the_ceiling_cannot_bid(sellers, auction):
    poor = cast.seller("poor", device=card())
    offer = read(poor.post(OFFERS, {"price": price("0.001")}), 201)
    cast.fund(poor.id, 99 * MILLI)  # enough for his price, not for the ceiling
    with nothing_changes():
        body = {"offer_id": offer["id"], "commitment": commitment(auction, poor, "0.0001", SALTS[0])}
        answer = poor.post(f"{AUCTIONS}/{auction['id']}/bids", body)
        refused(answer, 409, "payment.insufficient_funds")
    cast.fund(poor.id, MILLI)
    bid(poor, auction, offer, "0.0001")
    assert money(poor.id) == (100 * MILLI, 100 * MILLI)
