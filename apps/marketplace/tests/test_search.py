"""Search against a naive evaluation in Python; pages without gaps or repeats; its cost and its limits."""

from datetime import timedelta
from uuid import UUID

import pytest
from django.db import transaction
from django.test import Client
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aitbc.core import db
from aitbc.core.clock import database_now
from aitbc.core.errors import Unavailable
from aitbc.core.ids import uuid7
from aitbc.core.pagination import encode
from aitbc.core.testing.cast import AIT
from apps.gpu.models import Occupancy
from apps.marketplace.models import Offer, OfferDevice
from apps.marketplace.selectors import offers as selectors
from apps.marketplace.selectors.values import FIELDS
from apps.marketplace.tasks import sweep
from apps.marketplace.tests.conftest import OFFERS, add_device, card, read
from apps.marketplace.tests.expressions import KINDS, MODELS, expressions, make, some_offers

pytestmark = pytest.mark.django_db
PLAIN = {
    "model": MODELS[0],
    "device_count": 1,
    "memory_mb": 81920,
    "price": AIT // 1000,
    "region": "eu",
    "kinds": [KINDS[0]],
    "state": "listed",
    "verified": False,
}


def unit_price(o):
    return float("inf") if o.tflops is None else float(o.price) * 3600e-18 / o.tflops


def score(o):
    value = 0.0 if o.tflops is None else 50 * 0.01 / (0.01 + unit_price(o))
    return value + 30 * (o.reliability_low or 0) + 20 * o.verified


SORTS = {
    "price": lambda o: (o.price, o.id),
    "-price": lambda o: (-o.price, -o.id.int),
    "memory": lambda o: (-o.memory_mb, -o.id.int),
    "newest": lambda o: -o.id.int,
    "price_per_tflops": lambda o: (unit_price(o), o.id),
    "reliability": lambda o: (1 if o.reliability is None else -o.reliability, -o.id.int),
    "score": lambda o: (-score(o), -o.id.int),
}


def insert(miner_id, rows):
    return Offer.objects.bulk_create(make(miner_id, PLAIN | row) for row in rows)


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


@pytest.mark.parametrize("way", ["look up", "walk the classes", "walk all"])
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    drawn=some_offers(),
    expression=expressions(),
    state=st.sampled_from(("", "", "state in [listed, paused]", "state != listed")),
    sort=st.sampled_from(sorted(SORTS)),
    limit=st.integers(1, 9),
)
def test_search_equals_a_naive_evaluation_on_every_page(mike, way, drawn, expression, state, sort, limit):
    """Each of the three ways through the offers, forced, finds the same set in the same order."""
    text, fits = expression
    states = {"": ("listed",), "state != listed": ("paused", "suspended", "delisted")}.get(state, ("listed", "paused"))
    with pytest.MonkeyPatch.context() as forced, transaction.atomic():
        forced.setattr(selectors, "FEW", -1 if way != "look up" else 10**9)
        forced.setattr(selectors, "WALK", {"walk all": 3}.get(way, 10**9))
        offers = insert(mike.miner_id, drawn)
        fitting = [offer for offer in offers if offer.state in states and fits(offer) is True]

        found, totals = pages(
            {"q": f"({text}) and {state}" if state else text, "sort": sort, "limit": limit, "count": "exact"}
        )

        assert found == [offer.id for offer in sorted(fitting, key=SORTS[sort])], text
        assert totals == {len(fitting)}
        transaction.set_rollback(True)


@pytest.mark.parametrize("sort", sorted(SORTS))
def test_pages_over_rows_of_one_price_have_no_gap_and_no_repeat_while_rows_come_and_go(mike, sort):
    offers = sorted(insert(mike.miner_id, [PLAIN] * 30), key=SORTS[sort])
    first = read(Client().get(OFFERS, {"sort": sort, "limit": 10}))
    Offer.objects.filter(pk=offers[9].pk).update(state="delisted", reason="seller")  # the cursor's own row
    Offer.objects.filter(pk=offers[15].pk).update(state="paused", reason="seller")

    rest, _ = pages({"sort": sort, "limit": "7", "cursor": first["next"]})

    assert [UUID(item["id"]) for item in first["items"]] == [offer.id for offer in offers[:10]]
    assert rest == [offer.id for offer in offers[10:] if offer.pk != offers[15].pk]


@pytest.mark.parametrize(
    "query",
    [
        {"sort": "price; drop table"},
        {"limit": "0"},
        {"limit": "201"},
        {"q": "state = sold"},
        {"q": "price < 1e3"},
        {"q": "kind = 'x' or 1=1"},
        {"q": "("},
        {"q": "verified and " * 400},
        {"cursor": "!!"},
        {"cursor": "abc"},
        {"cursor": encode("newest", str(uuid7()), str(uuid7()))},
        {"cursor": encode("price", "12x", str(uuid7()))},
        {"cursor": encode("price", "1", "not an id")},
        {"cursor": encode("price", None, None)},
        {"cursor": encode("price", "1\x00", str(uuid7()))},
        {"cursor": encode("price", "1", "\x00")},
        {"sort": "memory", "cursor": encode("memory", "9" * 19, str(uuid7()))},
        {"sort": "score", "cursor": encode("score", "much", str(uuid7()))},
        {"sort": "score", "cursor": encode("score", None, str(uuid7()))},
    ],
)
def test_a_wrong_query_is_refused_with_its_field(query):
    problem = read(Client().get(OFFERS, query), 422)

    field = "cursor" if "cursor" in query else next(iter(query))
    assert field in [part for error in problem["errors"] for part in error["loc"]]


def test_a_mistake_in_a_filter_is_a_problem_with_position_and_hint():
    problem = read(Client().get(OFFERS, {"q": "price < 1 and memry_gb > 3"}), 422)

    assert (problem["code"], problem["position"]) == ("filter.unknown_field", 14)
    assert problem["hint"] == "did you mean memory_gb?"
    assert "at character 14: did you mean memory_gb?" in problem["detail"]


@pytest.mark.parametrize(
    "value",
    [
        "'; DROP TABLE marketplace_offer; --",
        "x') OR true --",
        "%s",
        "%(name)s",
        "$1",
        "$$ OR true $$",
        "\\'; SELECT pg_sleep(9); --",
        "{}",
        "e\\u0027",
        "' UNION SELECT secret_hash FROM accounts_apikey --",
    ],
)
@pytest.mark.parametrize("field", ["model", "region", "driver", "kinds", "sandbox"])
def test_no_value_gets_out_of_its_place(mike, value, field):
    """What a value says is compared and never run: only the offer that really has it is found."""
    column = {"model": "model", "kinds": "kinds"}.get(field, field)
    value = value if field == "model" else value[:20]  # what its column can hold
    (hit, _) = insert(mike.miner_id, [{column: [value.lower()] if field == "kinds" else value}, {}])
    quoted = value.replace("\\", "\\\\").replace('"', '\\"')

    found, _ = pages({"q": f'{field} = "{quoted}"'})
    listed, _ = pages({"q": f'{field} in ["{quoted}", "{quoted}"] and {field} != null'})

    assert found == listed == [hit.pk]
    assert Offer.objects.count() == 2


def test_the_score_is_the_published_formula(mike):
    """H200 at 3.6 AIT an hour, 67 TFLOPS: 3.6 / 67 = 0.0537 AIT per TFLOPS hour, so 50 * 0.01 / 0.0637 = 7.84."""
    known = {"tflops": 67.0, "reliability_low": 0.9, "verified": True}
    full, nothing = insert(mike.miner_id, [known, {}])

    items = {item["id"]: item["score"] for item in read(Client().get(OFFERS))["items"]}

    assert items == {str(full.pk): 54.845, str(nothing.pk): 0}


def test_an_offer_is_gone_from_search_at_its_end_and_withdrawn_by_the_sweep(mike, offer_of):
    soon = database_now() + timedelta(hours=1)
    offer = offer_of(mike, expires_at=soon.isoformat())
    assert read(Client().get(OFFERS))["items"] == [offer]
    assert sweep()["expired"] == 0

    Offer.objects.update(expires_at=database_now() - timedelta(seconds=1))

    assert read(Client().get(OFFERS))["items"] == []
    assert sweep()["expired"] == 1
    gone = Offer.objects.get()
    assert (gone.state, gone.reason) == ("delisted", "expired")
    last = gone.transitions.order_by("id").last()
    assert (last.before, last.after, last.reason, last.by) == ("listed", "delisted", "expired", None)
    assert sweep()["expired"] == 0


def test_an_occupied_offer_is_not_available(mike, offer_of):
    offer = offer_of(mike)
    assert pages({"q": "available"})[0] == [UUID(offer["id"])]

    now, (device,) = database_now(), offer["devices"]
    span = (now - timedelta(minutes=1), now + timedelta(minutes=1))
    Occupancy.objects.create(device_id=device["id"], holder=uuid7(), client_id=mike.id, during=span)

    assert pages({"q": "available"})[0] == []
    assert pages({"q": "occupied and not available"})[0] == [UUID(offer["id"])]


def test_no_match_is_explained_filter_by_filter(mike):
    rows = [{"price": AIT}, {"price": 2 * AIT}, {"price": AIT, "region": "us"}]
    insert(mike.miner_id, [*rows, {"state": "paused", "region": "us"}])

    page = read(Client().get(OFFERS, {"q": "region = us and (price > 1.5 or verified) and count = 1", "explain": 1}))

    assert page["items"] == []
    assert page["explain"] == [
        {"filter": "region = us", "position": 0, "fits": 1, "without": 1},
        {"filter": "(price > 1.5 or verified)", "position": 16, "fits": 1, "without": 1},
        {"filter": "count = 1", "position": 46, "fits": 3, "without": 0},
    ]
    assert read(Client().get(OFFERS, {"q": "verified"}))["explain"] is None


def test_a_page_costs_one_search_however_many_offers_and_devices_it_shows(mike, monkeypatch):
    def statements(count):
        sent = []
        real = db.rows
        with monkeypatch.context() as patched:
            patched.setattr(db, "rows", lambda sql, *a, **kw: sent.append(sql) or real(sql, *a, **kw))
            page = read(Client().get(OFFERS, {"limit": 200, "count": count}))
        return len(page["items"]), len([sql for sql in sent if "marketplace_find" in sql]), len(sent)

    def stock(n):
        for offer in insert(mike.miner_id, [{}] * n):
            for _ in range(3):
                OfferDevice.objects.create(offer=offer, device=add_device(mike, card()), state="listed")

    stock(1)
    few = statements("none")
    stock(40)

    assert few == (1, 1, 4)  # besides it the time limit is read, set and put back
    assert statements("none") == (41, 1, 4)
    assert statements("exact") == (41, 1, 4)


def test_a_search_past_its_time_is_stopped_and_says_so(mike, offer_of, monkeypatch):
    offer_of(mike)
    monkeypatch.setattr(selectors, "_ON_SALE", "(SELECT pg_sleep(5)) IS NOT NULL")

    problem = read(Client().get(OFFERS), 503)

    assert problem["code"] == "database.slow"


def test_the_limit_of_a_search_does_not_outlive_it():
    before = db.value("SELECT current_setting('statement_timeout')")

    with db.bounded(250):
        assert db.value("SELECT current_setting('statement_timeout')") == "250ms"
    with pytest.raises(Unavailable), db.bounded(50):
        db.rows("SELECT pg_sleep(5)")

    assert db.value("SELECT current_setting('statement_timeout')") == before


def test_every_field_can_be_asked_for(mike):
    """Each compares, and `!= null` splits the offers into those that have it and those that do not."""
    (offer,) = insert(mike.miner_id, [{}])
    values = {"model": "x", "text": "x", "choice": "suspended", "uuid": mike.miner_id, "set": "x", "bool": "true"}
    for name, field in FIELDS.items():
        value = {"kind": "cuda", "reason": "seller"}.get(name, values.get(field.kind, "1"))
        value = "2026-01-31T12:00+02:00" if field.kind == "time" else value
        states = "state in [listed, paused]"

        read(Client().get(OFFERS, {"q": f"{name} = {value} and {states}"}))
        has, _ = pages({"q": f"{name} != null and {states}"})
        lacks, _ = pages({"q": f"{name} = null and {states}"})

        assert has + lacks == [offer.pk], name
    assert pages({"q": "created > 2026-01-31 and created < 2126-01-31 and age < 1h"})[0] == [offer.pk]
    assert pages({"q": "created < 2026-01-31T12:00Z or unchanged > 1d"})[0] == []
