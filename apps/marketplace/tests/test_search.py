"""Search against a naive evaluation in Python; pages without gaps or repeats; its cost and its limits."""

from datetime import UTC, datetime
from decimal import Decimal
from uuid import UUID

import pytest
from django.db import transaction
from django.test import Client
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aitbc.core import db
from aitbc.core.errors import Unavailable
from aitbc.core.ids import uuid7
from aitbc.core.pagination import encode
from aitbc.core.testing.cast import AIT
from apps.marketplace.models import Offer, OfferDevice
from apps.marketplace.selectors import offers as selectors
from apps.marketplace.tests.conftest import OFFERS, add_device, card, read

pytestmark = pytest.mark.django_db
MODELS = ("NVIDIA H200", "NVIDIA RTX 4090", "AMD MI300X")
REGIONS = ("eu", "us", "asia")
KINDS = ("bench.matmul", "onnx.infer", "vision.ocr")
PRICES = ("0.0001", "0.0005", "0.001", "12")  # few, so that many rows share one
GIGABYTES = (8, 24, 80, 141)
STATES = ("listed", "listed", "listed", "paused", "suspended", "delisted")
SORTS = {
    "price": lambda o: (o.price, o.id),
    "-price": lambda o: (-o.price, -o.id.int),
    "memory": lambda o: (-o.memory_mb, -o.id.int),
    "newest": lambda o: -o.id.int,
}


def some_offers(**fixed):
    row = {
        "model": st.sampled_from(MODELS),
        "memory_gb": st.sampled_from(GIGABYTES),
        "price": st.sampled_from(PRICES),
        "region": st.sampled_from(REGIONS),
        "kinds": st.sets(st.sampled_from(KINDS), min_size=1),
        "state": st.sampled_from(STATES),
        "verified": st.booleans(),
    }
    return st.lists(st.fixed_dictionaries(row | fixed), max_size=25)


def some_queries():
    return st.fixed_dictionaries(
        {},
        optional={
            "model": st.sampled_from([*MODELS, "nvidia h200", "H200"]),
            "min_vram_gb": st.sampled_from(["8", "23.5", "24", "80.01", "141"]),
            "kind": st.sampled_from(KINDS),
            "region": st.sampled_from([*REGIONS, "EU"]),
            "max_price": st.sampled_from([*PRICES, "0", "0.000999999999999999"]),
            "verified": st.sampled_from(["true", "false"]),
            "state": st.sampled_from(STATES),
        },
    )


def insert(miner_id, drawn):
    """Rows as they are; the devices do not matter to the filters."""
    rows = [
        Offer(
            id=uuid7(),
            miner_id=miner_id,
            model=row["model"],
            device_count=1,
            memory_mb=row["memory_gb"] * 1024,
            price=int(Decimal(row["price"]) * AIT),
            region=row["region"],
            kinds=sorted(row["kinds"]),
            state=row["state"],
            reason="" if row["state"] == "listed" else "seller",
            verified=row["verified"],
            available_from=datetime.now(UTC),
        )
        for row in drawn
    ]
    return Offer.objects.bulk_create(rows)


def fits(offer, query):
    return (
        offer.state == query.get("state", "listed")
        and offer.model.lower() == query.get("model", offer.model).lower()
        and offer.memory_mb >= float(query.get("min_vram_gb", 0)) * 1024
        and query.get("kind", offer.kinds[0]) in offer.kinds
        and offer.region == query.get("region", offer.region)
        and offer.price <= Decimal(query.get("max_price", 10**19)) * AIT
        and str(offer.verified).lower() == query.get("verified", str(offer.verified).lower())
    )


def pages(query):
    """Every id of every page in order, and the totals that the pages told."""
    found, totals, cursor = [], set(), None
    while True:
        page = read(Client().get(OFFERS, query | ({"cursor": cursor} if cursor else {})))
        assert len(page["items"]) <= int(query.get("limit", 50))
        found += [UUID(item["id"]) for item in page["items"]]
        totals.add(page["total"])
        cursor = page["next"]
        if cursor is None:
            return found, totals


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(drawn=some_offers(), query=some_queries(), sort=st.sampled_from(sorted(SORTS)), limit=st.integers(1, 7))
def test_search_equals_a_naive_evaluation_on_every_page(mike, drawn, query, sort, limit):
    with transaction.atomic():
        offers = insert(mike.miner_id, drawn)
        expected = [offer.id for offer in sorted(offers, key=SORTS[sort]) if fits(offer, query)]

        found, totals = pages(query | {"sort": sort, "limit": str(limit), "count": "exact"})

        assert found == expected
        assert totals == {len(expected)}
        transaction.set_rollback(True)


@pytest.mark.parametrize("sort", sorted(SORTS))
def test_pages_over_rows_of_one_price_have_no_gap_and_no_repeat_while_rows_come_and_go(mike, sort):
    row = {
        "model": MODELS[0],
        "memory_gb": 80,
        "price": "0.001",
        "region": "eu",
        "kinds": {"onnx.infer"},
        "state": "listed",
        "verified": False,
    }
    offers = sorted(insert(mike.miner_id, [row] * 30), key=SORTS[sort])
    first = read(Client().get(OFFERS, {"sort": sort, "limit": 10}))
    Offer.objects.filter(pk=offers[9].pk).update(state="delisted", reason="seller")  # the cursor's own row
    Offer.objects.filter(pk=offers[15].pk).update(state="paused", reason="seller")

    rest, _ = pages({"sort": sort, "limit": "7", "cursor": first["next"]} | {})

    assert [UUID(item["id"]) for item in first["items"]] == [offer.id for offer in offers[:10]]
    assert rest == [offer.id for offer in offers[10:] if offer.pk != offers[15].pk]


@pytest.mark.parametrize(
    "query",
    [
        {"sort": "price; drop table"},
        {"state": "sold"},
        {"limit": "0"},
        {"limit": "201"},
        {"max_price": "1e3"},
        {"max_price": "-1"},
        {"min_vram_gb": "nan"},
        {"min_vram_gb": "0"},
        {"kind": "Not A Kind"},
        {"cursor": "!!"},
        {"cursor": "abc"},
        {"cursor": encode("newest", str(uuid7()), str(uuid7()))},
        {"cursor": encode("price", "12x", str(uuid7()))},
        {"cursor": encode("price", "9" * 39, str(uuid7()))},
        {"cursor": encode("price", "1", "not an id")},
        {"cursor": encode("price", None, None)},
        {"sort": "memory", "cursor": encode("memory", "9" * 11, str(uuid7()))},
    ],
)
def test_a_wrong_query_is_refused_with_its_field(query):
    problem = read(Client().get(OFFERS, query), 422)

    field = "cursor" if "cursor" in query else next(iter(query))
    assert field in [part for error in problem["errors"] for part in error["loc"]]


def test_a_page_costs_one_search_however_many_offers_and_devices_it_shows(mike, monkeypatch):
    def statements(count):
        sent = []
        real = db.rows
        with monkeypatch.context() as patched:
            patched.setattr(db, "rows", lambda sql, *a, **kw: sent.append(sql) or real(sql, *a, **kw))
            page = read(Client().get(OFFERS, {"limit": 200, "count": count}))
        return len(page["items"]), len([sql for sql in sent if "marketplace_offer" in sql]), len(sent)

    def stock(n):
        row = {"model": MODELS[0], "memory_gb": 8, "price": "1", "region": "eu", "kinds": {KINDS[0]}}
        for offer in insert(mike.miner_id, [row | {"state": "listed", "verified": True}] * n):
            for _ in range(3):
                OfferDevice.objects.create(offer=offer, device=add_device(mike, card()), state="listed")

    stock(1)
    few = statements("none")
    stock(40)

    assert few == (1, 1, 4)  # besides it the time limit is read, set and put back
    assert statements("none") == (41, 1, 4)
    assert statements("exact") == (41, 2, 5)


def test_a_search_past_its_time_is_stopped_and_says_so(mike, offer_of, monkeypatch):
    offer_of(mike)
    monkeypatch.setattr(selectors, "_FROM", "FROM pg_sleep(5), marketplace_offer o WHERE")

    problem = read(Client().get(OFFERS), 503)

    assert problem["code"] == "database.slow"


def test_the_limit_of_a_search_does_not_outlive_it():
    before = db.value("SELECT current_setting('statement_timeout')")

    with db.bounded(250):
        assert db.value("SELECT current_setting('statement_timeout')") == "250ms"
    with pytest.raises(Unavailable), db.bounded(50):
        db.rows("SELECT pg_sleep(5)")

    assert db.value("SELECT current_setting('statement_timeout')") == before
