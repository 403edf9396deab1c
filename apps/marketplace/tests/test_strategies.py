"""Dynamic prices: the formula's properties, that a change is recomputable, bounds, breaker, bulk and dry run."""

from datetime import timedelta
from decimal import Decimal
from uuid import uuid4

import orjson
import pytest
from django.test import Client
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aitbc.core import db
from aitbc.core.testing import cast
from aitbc.core.testing.cast import AIT, job_body
from aitbc.core.testing.snapshot import nothing_changes, snapshot
from apps.marketplace import tasks
from apps.marketplace.models import Offer, Strategy
from apps.marketplace.tests.conftest import OFFERS, card, price, read
from apps.marketplace.tests.test_prices import hour, prices_at

pytestmark = pytest.mark.django_db
BULK = "/v1/marketplace/strategies/bulk"


def ait(amount: str):
    return {"amount": amount, "asset": "AIT"}


def terms(strategy: str = "demand", low: str = "0.0001", high: str = "10", **more):
    return {"strategy": strategy, "min": ait(low), "max": ait(high)} | more


def strategy_of(seller, offer, **more):
    return read(seller.put(f"{OFFERS}/{offer['id']}/strategy", terms(**more)))


def due() -> None:
    Strategy.objects.update(due_at=hour(1))


def compute(inputs):
    return orjson.loads(db.value("SELECT strategy_price(%s::jsonb)", (orjson.dumps(inputs).decode(),)))


def presets():
    found = orjson.loads(db.value("SELECT market_presets()"))["items"]
    return {row.pop("code"): {k: v for k, v in row.items() if k != "about"} for row in found}


AMOUNT = st.integers(1, 10**24)
SHARE = st.one_of(st.none(), st.integers(0, 10**6).map(lambda n: n / 10**6))
BPS = st.integers(0, 10_000)


@st.composite
def inputs(draw):
    floor, ceiling = sorted((draw(AMOUNT), draw(AMOUNT)))
    base, last, cost = (str(draw(AMOUNT)) for _ in range(3))
    return {
        "base": base, "last": last, "cost": cost, "margin_bps": draw(BPS), "target_bps": draw(BPS), "floor": str(floor),
        "ceiling": str(ceiling), "step_bps": draw(st.integers(1, 5000)),
        "demand": draw(SHARE), "utilisation": draw(SHARE),
        "competitor": draw(st.one_of(st.none(), AMOUNT.map(str))),
        "hour": draw(st.sampled_from([0.8, 1, 1.1, 1.15, 1.2])),
        "volatility": draw(st.one_of(st.none(), st.sampled_from([0, 0.3, 0.5, 0.500001, 2]))),
        "frozen": draw(st.booleans()),
    }  # fmt: skip


CHECKS = settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@CHECKS
@given(told=inputs(), name=st.sampled_from(range(9)), more=st.integers(0, 10**6))
def test_bounds_step_breaker_and_demand_hold_for_every_strategy(db, told, name, more):
    preset = sorted(presets().items())[name][1]
    told |= preset
    found = compute(told)

    after, last, low, high = int(found["price"]), int(told["last"]), int(told["floor"]), int(told["ceiling"])
    assert low <= after <= high
    step = last * told["step_bps"] // 10_000
    assert abs(after - last) <= step or (after in (low, high) and not low <= last <= high)
    frozen = told["frozen"] or (told["volatility"] or 0) > 0.5
    assert found["frozen"] == frozen
    if frozen:
        assert after == min(high, max(low, last))
    for signal in ("demand", "utilisation"):
        if told[signal] is not None:
            risen = compute(told | {signal: max(told[signal], more / 10**6)})
            assert int(risen["price"]) >= after
            assert int(risen["raw"]) >= int(found["raw"])


def test_the_formula_by_hand(db):
    told = presets()["profit_maximization"] | {
        "base": str(2 * 10**15), "last": str(2 * 10**15), "cost": None, "margin_bps": 0, "target_bps": 0, "floor": "1",
        "ceiling": str(10**18), "step_bps": 5000, "demand": 0.9, "utilisation": 0, "competitor": str(3 * 10**15),
        "hour": 1.2, "volatility": None, "frozen": False,
    }  # fmt: skip

    found = compute(told)

    assert found["factors"] == {"multiplier": 1.25, "demand": 1.28, "competition": 1.1, "time": 1.2, "growth": 1}
    assert found["raw"] == str(4224 * 10**12)  # 0.002 * 1.25 * 1.28 * 1.1 * 1.2
    assert (found["price"], found["limited_by"]) == (str(3 * 10**15), "step")
    plus = compute(told | presets()["cost_plus"] | {"cost": "1000", "margin_bps": 2500, "last": "1000"})
    assert (plus["price"], plus["limited_by"]) == ("1250", None)
    up = compute(told | presets()["target_utilisation"] | {"utilisation": 0.75, "target_bps": 5000})
    assert up["price"] == str(2 * 10**15 * 9 // 8)


def test_a_change_is_recomputable_from_its_stored_inputs(mike, alice, offer_of):
    offer = offer_of(mike, "0.004")
    strategy_of(mike, offer, strategy="market_balance", step_bps=5000)
    read(alice.post("/v1/jobs", job_body()), 201)  # one job waits for the one slot

    assert tasks.apply_strategies() == {"changed": 1}

    (change,) = db.rows(
        "SELECT before, after, inputs::text, factors::text FROM marketplace_price_change WHERE preset <> ''"
    )
    before, after, told, factors = change
    again = compute(orjson.loads(told))
    assert (before, after) == (4 * 10**15, int(again["price"]))
    assert orjson.loads(factors) == again["factors"]
    assert orjson.loads(told)["demand"] == 0.5
    assert orjson.loads(told)["competitor"] is None
    assert Offer.objects.get().price == after
    assert tasks.apply_strategies() == {}


def test_demand_counts_busy_slots_and_waiting_jobs_and_utilisation_the_last_hour(mike, alice, offer_of):
    offer = offer_of(mike, "0.001")
    for _ in range(3):
        read(alice.post("/v1/jobs", job_body()), 201)
    (lease,) = mike.poll()
    db.rows(
        "UPDATE gpu_job SET state = 'running', started_at = clock_timestamp() - interval '15 minutes' WHERE id = %s",
        (lease["id"],),
    )

    told = strategy_of(mike, offer)["next"]["inputs"]

    assert told["demand"] == 1  # the only slot is busy, and more than one job waits for it
    assert told["utilisation"] == pytest.approx(0.25, abs=0.01)
    assert tasks.apply_strategies() == {"changed": 1}
    assert Offer.objects.get().price == 11 * 10**14  # 0.001 * 1.25, held to a step of 10 %


def test_the_breaker_freezes_an_hour_and_the_price_stays(mike, offer_of):
    offer = offer_of(mike, "0.004")
    prices_at("NVIDIA H200", {ago: (10**15 * (1 if ago % 2 else 9), 1) for ago in range(1, 7)})
    strategy_of(mike, offer)

    assert tasks.apply_strategies() == {"frozen": 1}

    frozen = Strategy.objects.get()
    assert Offer.objects.get().price == 4 * 10**15
    assert (
        timedelta(minutes=59)
        < frozen.frozen_until - frozen.due_at + timedelta(seconds=300)
        <= timedelta(hours=1, seconds=1)
    )
    db.rows("DELETE FROM marketplace_price")
    due()
    assert tasks.apply_strategies() == {"frozen": 1}
    assert Strategy.objects.get().frozen_until == frozen.frozen_until
    Strategy.objects.update(frozen_until=hour(1), due_at=hour(1))
    assert tasks.apply_strategies() == {"changed": 1}


def test_a_sellers_own_price_is_noted_and_becomes_the_base(mike, alice, offer_of):
    offer = offer_of(mike, "0.004")
    strategy_of(mike, offer, strategy="fixed")
    assert tasks.apply_strategies() == {"same": 1}

    read(mike.patch(f"{OFFERS}/{offer['id']}", {"price": price("0.006")}))
    due()

    assert tasks.apply_strategies() == {"same": 1}
    shown = read(alice.get(f"{OFFERS}/{offer['id']}/prices"))
    assert [(row["before"], row["after"], row["strategy"]) for row in shown["items"]] == [
        (ait("0.004"), ait("0.006"), None),
        (None, ait("0.004"), None),
    ]
    first = read(alice.get(f"{OFFERS}/{offer['id']}/prices?limit=1"))
    rest = read(alice.get(f"{OFFERS}/{offer['id']}/prices?limit=1&cursor={first['next']}"))
    assert first["items"] + rest["items"] == shown["items"]
    assert rest["next"] is None


def test_inputs_are_shown_to_the_seller_only(mike, alice, offer_of):
    offer = offer_of(mike, "0.004")
    strategy_of(mike, offer, strategy="cost_plus", cost=ait("0.003"), margin_bps=2000)
    tasks.apply_strategies()

    own, others = (read(who.get(f"{OFFERS}/{offer['id']}/prices"))["items"][0] for who in (mike, alice))

    assert own["told"]["inputs"]["cost"] == str(3 * 10**15)
    assert own["told"]["factors"]["multiplier"] == 1.2
    assert others["told"] is None
    assert others["after"] == own["after"] == ait("0.0036")


def test_only_the_seller_sees_and_sets_a_strategy(mike, nora, alice, offer_of):
    offer = offer_of(mike, "0.004")
    path = f"{OFFERS}/{offer['id']}/strategy"
    assert read(mike.get(path), 404)["code"] == "strategy.unknown"
    shown = strategy_of(mike, offer)
    assert shown["base"] == ait("0.004")

    with nothing_changes():
        assert read(nora.get(path), 404)["code"] == "offer.unknown"
        assert read(nora.put(path, terms()), 404)["code"] == "offer.unknown"
        assert alice.put(path, terms()).status_code == 403
        assert Client().put(path).status_code in (401, 415)


@pytest.mark.parametrize(
    ("wrong", "code"),
    [
        (terms("clever"), "strategy.preset"),
        (terms("cost_plus"), "strategy.cost"),
        (terms(low="2", high="1"), "strategy.bounds"),
        (terms(low="0"), "strategy.bounds"),
        (terms(base=ait("0")), "strategy.amount"),
        (terms(step_bps=5001), "request.invalid"),
    ],
)
def test_a_wrong_strategy_is_refused_and_nothing_changes(mike, offer_of, wrong, code):
    offer = offer_of(mike)

    with nothing_changes():
        assert read(mike.put(f"{OFFERS}/{offer['id']}/strategy", wrong), 422)["code"] == code


def test_a_dry_run_changes_nothing_and_tells_what_the_run_then_does(mike, nora, offer_of):
    mine, other = offer_of(mike, "0.004"), offer_of(nora, "0.004")
    updates = [
        terms("fixed", base=ait("0.0042")) | {"offer_id": mine["id"]},
        terms() | {"offer_id": other["id"]},
        terms("clever") | {"offer_id": mine["id"]},
        terms() | {"offer_id": str(uuid4())},
    ]

    with nothing_changes():
        dry = read(mike.post(BULK, {"updates": updates, "dry_run": True}))
    wet = read(mike.post(BULK, {"updates": updates}, idempotency_key="bulk-1"))

    assert (dry["dry_run"], wet["dry_run"]) == (True, False)
    for found in (dry, wet):
        assert [item["code"] for item in found["items"]] == ["ok", "offer.unknown", "strategy.preset", "offer.unknown"]
        assert [item["offer_id"] for item in found["items"]] == [update["offer_id"] for update in updates]
        effect = found["items"][0]["effect"]
        assert (effect["price"], effect["next"]["price"]) == (ait("0.004"), ait("0.0042"))
        assert effect["next"]["factors"]["demand"] == 1
    assert Strategy.objects.count() == 1
    before = snapshot()
    assert read(mike.post(BULK, {"updates": updates}, idempotency_key="bulk-1")) == wet
    assert snapshot() == before
    tasks.apply_strategies()
    assert Offer.objects.get(pk=mine["id"]).price == 42 * 10**14


def test_a_delisted_offer_loses_its_strategy_and_takes_none(mike, offer_of):
    offer = offer_of(mike)
    strategy_of(mike, offer)
    read(mike.delete(f"{OFFERS}/{offer['id']}"))

    assert tasks.apply_strategies() == {"gone": 1}
    assert not Strategy.objects.exists()
    assert read(mike.put(f"{OFFERS}/{offer['id']}/strategy", terms()), 409)["code"] == "offer.delisted"


def test_competitors_are_other_owners_of_the_model_in_the_region(mike, offer_of):
    offer = offer_of(mike, "0.004")
    for name, amount, region in (("olga", "0.006", "eu"), ("otto", "0.008", "eu"), ("oona", "0.1", "us")):
        offer_of(cast.seller(name, device=card(), region=region), amount)

    told = strategy_of(mike, offer, strategy="competitive_response")["next"]["inputs"]

    assert told["competitor"] == str(6 * 10**15)


def test_recommendations_are_by_the_formulas_and_for_ones_own_offers(mike, nora, alice, offer_of):
    offer = offer_of(mike, "0.004")
    offer_of(nora, "0.004")
    path = "/v1/marketplace/recommendations"
    (none,) = read(mike.get(path))["items"]
    assert (none["offer_id"], none["advice"], none["strategy"]) == (offer["id"], "insufficient_data", None)

    prices_at("NVIDIA H200", {0: (2 * 10**15, 1)})
    db.rows("UPDATE marketplace_price SET span = 'day'")
    (idle,) = read(mike.get(path))["items"]
    assert (idle["advice"], idle["strategy"], idle["median"]) == ("lower", "competitive_response", ait("0.002"))

    for _ in range(3):
        read(alice.post("/v1/jobs", job_body()), 201)
    mike.poll()
    (busy,) = read(mike.get(path))["items"]
    assert (busy["advice"], busy["demand"], busy["supply"]) == ("raise", 1, 0)


def test_an_amount_of_many_digits_is_exact(mike, offer_of):
    offer = offer_of(mike, "0.123456789012345678")
    strategy_of(mike, offer, strategy="cost_plus", cost=ait("0.111111111111111111"), margin_bps=1, step_bps=5000)

    tasks.apply_strategies()

    assert Offer.objects.get().price == int(Decimal("0.111111111111111111") * AIT) * 10001 // 10000
