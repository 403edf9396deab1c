"""The price index, its history, forecast and elasticity, and the market's figures, against plain recomputation."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from uuid import uuid4

import pytest
from django.test import Client

from aitbc.core import db
from aitbc.core.testing import cast
from aitbc.core.testing.cast import AIT, MATMUL_OUTPUT, job_body
from aitbc.core.testing.snapshot import nothing_changes
from apps.gpu.models import Job
from apps.marketplace import tasks
from apps.marketplace.tests.conftest import card, read

pytestmark = pytest.mark.django_db
MARKET = "/v1/marketplace"


def shown(path: str, **query):
    return read(Client().get(f"{MARKET}/{path}", query))


def hour(ago: int = 0) -> datetime:
    return datetime.now(UTC).replace(minute=0, second=0, microsecond=0) - timedelta(hours=ago)


@pytest.fixture
def sold(alice, mike):
    """A completed job at a price, with its seconds, at a moment."""
    done = read(alice.post("/v1/jobs", job_body()), 201)
    (lease,) = mike.poll()
    assert mike.deliver(lease, MATMUL_OUTPUT).status_code == 200
    columns = [
        field.column
        for field in Job._meta.fields
        if field.column not in ("id", "unit_price", "units_ms", "finished_at", "miner_id")
    ]

    def make(price: int, seconds: float, at: datetime, seller=mike, **other) -> None:
        copied = [f"%s AS {name}" if name in other else name for name in columns]
        db.rows(
            f"""INSERT INTO gpu_job (id, unit_price, units_ms, finished_at, miner_id, {", ".join(columns)})
                SELECT %s, %s::numeric, %s, %s, %s, {", ".join(copied)} FROM gpu_job WHERE id = %s""",
            (
                uuid4(),
                price,
                int(seconds * 1000),
                at,
                seller.miner_id,
                *(other[n] for n in columns if n in other),
                done["id"],
            ),
        )

    Job.objects.all().update(units_ms=0, finished_at=hour(2400))
    return make


def prices_at(model: str, hours: dict[int, tuple[int, float]], region: str = "") -> None:
    """Rolled hours as they would be: hours ago -> (median, device seconds)."""
    for ago, (price, seconds) in hours.items():
        db.rows(
            """INSERT INTO marketplace_price (span, hour, source, model, region, p10, p50, p90, mean, weight, count)
               VALUES ('hour', %s, 'traded', %s, %s,
                       %s::numeric, %s::numeric, %s::numeric, %s::numeric, %s::numeric, 1)""",
            (hour(ago), model, region, price, price, price, price, Decimal(str(seconds))),
        )


def weighted(trades, share: Fraction) -> int:
    """The least price at or below which `share` of the seconds was sold."""
    total, below = sum(Fraction(s) for _, s in trades), Fraction(0)
    for price, seconds in sorted(trades):
        below += Fraction(seconds)
        if below >= share * total:
            return price
    raise AssertionError


def units(money) -> int:
    return int(Decimal(money["amount"]) * AIT)


def test_the_index_is_the_weighted_percentiles_of_real_trades(sold, mike, offer_of):
    nora = cast.seller("nell", device=card(), region="us")
    offer_of(mike, "0.5")
    eu = [(10 * 10**15, 30), (20 * 10**15, 5), (90 * 10**15, 65), (15 * 10**15, 1)]
    us = [(7 * 10**15, 400)]
    for price, seconds in eu:
        sold(price, seconds, hour() + timedelta(seconds=1))
    sold(*us[0], hour() + timedelta(seconds=2), seller=nora)
    sold(1, 10**6, hour(25))  # out of the last 24 hours

    assert tasks.roll_prices() >= 24

    for region, trades in (("eu", eu), ("us", us), (None, eu + us)):
        (item,) = shown("index", **({"region": region} if region else {}))["items"]
        figures = item["traded"]
        assert item["model"] == "NVIDIA H200"
        for name, share in (("p10", Fraction(1, 10)), ("p50", Fraction(1, 2)), ("p90", Fraction(9, 10))):
            assert units(figures[name]) == weighted(trades, share), (region, name)
        assert figures["weight"] == sum(seconds for _, seconds in trades)
        assert figures["count"] == len(trades)
    assert shown("index", region="eu")["items"][0]["listed"]["p50"] == {"amount": "0.5", "asset": "AIT"}
    assert shown("index", region="us")["items"][0]["listed"] is None
    assert shown("index", model="nvidia h200")["items"] == shown("index")["items"]


def test_a_mixed_miners_jobs_without_an_offer_are_in_no_index(sold, mike):
    from apps.marketplace.tests.conftest import add_device

    add_device(mike, card("NVIDIA RTX 4090", 24 * 1024))
    sold(10**15, 5, hour())

    tasks.roll_prices()

    assert shown("index")["items"] == []
    assert shown("stats")["device_seconds"] == 5


def test_rolling_twice_changes_nothing_and_a_late_trade_of_the_running_hour_is_taken(sold):
    sold(10**15, 5, hour(3))
    sold(2 * 10**15, 5, hour())
    assert tasks.roll_prices() > 0
    before = shown("index/history", model="NVIDIA H200", period="1d")

    assert tasks.roll_prices() == 0
    assert shown("index/history", model="NVIDIA H200", period="1d") == before
    sold(10**15, 500, hour())
    tasks.roll_prices()

    points = shown("index/history", model="NVIDIA H200", period="1d")["points"]
    assert [units(p["traded"]["p50"]) for p in points] == [10**15, 10**15]
    assert [p["traded"]["weight"] for p in points] == [5, 505]


def test_history_of_a_month_has_a_point_per_calendar_day(sold):
    midnight = hour().replace(hour=0)
    for day, price in ((2, 3), (1, 5)):
        sold(price * 10**15, 10, midnight - timedelta(days=day) + timedelta(hours=1))
        sold(price * 10**15 * 2, 20, midnight - timedelta(days=day) + timedelta(hours=22))

    tasks.roll_prices()

    shown_days = shown("index/history", model="NVIDIA H200", period="30d")
    assert shown_days["resolution"] == "day"
    assert [units(p["traded"]["p50"]) for p in shown_days["points"]][:2] == [6 * 10**15, 10**16]
    assert [p["traded"]["weight"] for p in shown_days["points"]][:2] == [30, 30]


def test_a_forecast_needs_four_days_of_hours():
    prices_at("H200", dict.fromkeys(range(1, 96), (10**15, 1)))

    found = shown("index/forecast", model="H200")

    assert (found["status"], found["observed_hours"], found["needed_hours"]) == ("insufficient_data", 95, 96)
    assert found["points"] == []
    assert found["backtest"] is None


def test_a_forecast_is_last_days_price_and_the_mean_drift_and_the_same_each_time():
    series = {
        ago: 10**15 + (ago % 24) * 10**13 + (500 - ago) * 10**12 + (ago * 37 % 11) * 10**11 for ago in range(1, 200)
    }
    prices_at("H200", {ago: (price, 1) for ago, price in series.items()})

    found = shown("index/forecast", model="H200", hours=30)

    assert found == shown("index/forecast", model="H200", hours=30)
    y = [series[ago] for ago in range(199, 0, -1)]
    differences = [y[i] - y[i - 24] for i in range(24, len(y))]
    drift = Fraction(sum(differences), len(differences))
    for h, point in enumerate(found["points"], 1):
        season = (h - 1) // 24 + 1
        expected = y[len(y) + h - 24 * season - 1] + season * drift
        assert abs(units(point["price"]) - expected) <= 1
        assert units(point["low"]) < units(point["price"]) < units(point["high"])
    errors = []
    for i in range(71, len(y)):
        known = [y[j] - y[j - 24] for j in range(24, i - 23)]
        errors.append(abs(y[i] - y[i - 24] - Fraction(sum(known), len(known))))
    assert found["backtest"]["errors"] == len(errors)
    assert abs(units(found["backtest"]["mean_absolute_error"]) - sum(errors) / len(errors)) <= 1
    assert found["backtest"]["share_inside_interval"] > 0.8


def test_an_elasticity_is_the_slope_of_the_logarithms_with_its_error():
    prices_at("H200", {ago: ((ago + 10) * 10**15, 1000 * (ago + 10) ** -1.5) for ago in range(1, 40)})
    prices_at("B200", {ago: (10**15, ago) for ago in range(1, 40)})

    found = shown("index/forecast", model="H200")["elasticity"]

    assert found["status"] == "ok"
    assert found["value"] == pytest.approx(-1.5, abs=1e-3)
    assert 0 <= found["error"] < 1e-3
    same_price = shown("index/forecast", model="B200")["elasticity"]
    assert (same_price["status"], same_price["value"], same_price["hours"]) == ("insufficient_data", None, 39)


def test_a_trend_is_said_only_of_enough_points_and_a_clear_slope():
    def trend(points):
        return db.value("SELECT market_trend(%s::numeric[])->>'status'", (points,))

    assert trend([]) == trend([1, 2, 3, 4, 5, 6, 7, 8, 9]) == "insufficient_data"
    assert trend(list(range(1, 30))) == "rising"
    assert trend(list(range(30, 1, -1))) == "falling"
    assert trend([5] * 12) == trend([5, 9, 4, 8, 5, 9, 4, 8, 5, 9, 4, 8]) == "stable"
    assert trend([0] * 12) == "stable"


def test_an_empty_market_gives_zeros_and_nulls(db):
    with nothing_changes():
        found = shown("stats", period="30d")

    assert [found[name] for name in ("offers", "devices", "slots", "busy", "device_seconds")] == [0] * 5
    assert found["jobs"] == {"completed": 0, "failed": 0, "canceled": 0, "expired": 0}
    assert found["billed"] == found["fees"] == found["paid"] == {"amount": "0", "asset": "AIT"}
    assert found["price"] is None
    assert found["success_rate"] is None
    assert found["trend"] == {"status": "insufficient_data", "points": 0, "slope": None, "t": None}
    assert shown("index") == {"region": None, "items": []}


def test_stats_equal_the_sums_of_the_jobs_and_of_the_payments(alice, mike, nora, offer_of):
    offer_of(mike, "0.002")
    job = read(alice.post("/v1/jobs", job_body()), 201)["id"]
    (lease,) = mike.poll()
    assert mike.deliver(lease, MATMUL_OUTPUT).status_code == 200
    paid, fee = db.row("SELECT released, fee FROM trading_payment WHERE job = %s", (job,))
    before = shown("stats")
    assert (units(before["paid"]), units(before["fees"])) == (int(paid), int(fee))
    template = Job.objects.get(pk=job)
    for number, (price, seconds) in enumerate([(3 * 10**15, 7.001), (10**15, 11.5)]):
        copy = Job.objects.get(pk=job)
        copy.pk, copy.unit_price, copy.units_ms, copy.finished_at = uuid4(), price, int(seconds * 1000), hour(5)
        copy.state, copy.max_price = ("completed", "failed")[number], AIT
        copy.save(force_insert=True)
    db.rows("DELETE FROM marketplace_rollup")
    tasks.roll_prices()

    found = shown("stats")

    bills = [int(template.units_ms * template.unit_price + 999) // 1000, 21003 * 10**12, 11500 * 10**12]
    assert units(found["billed"]) == sum(bills)
    assert units(found["fees"]) == sum(-(-bill * 250 // 10000) for bill in bills)
    assert found["jobs"] == {"completed": 2, "failed": 1, "canceled": 0, "expired": 0}
    assert found["success_rate"] == pytest.approx(2 / 3, abs=1e-6)
    assert (found["offers"], found["devices"], found["slots"]) == (1, 1, 2)
    assert found["price"]["mean"] == {"amount": "0.002", "asset": "AIT"}
    assert shown("stats", region="eu")["billed"] == found["billed"]
    assert shown("stats", region="us")["jobs"]["completed"] == 0


def test_every_public_figure_is_read_within_its_time(monkeypatch, db):
    from apps.marketplace.api import pricing

    asked = []
    real = pricing.db.bounded
    monkeypatch.setattr(pricing.db, "bounded", lambda ms: asked.append(ms) or real(ms))

    for path in ("index", "index/history?model=x", "index/forecast?model=x", "stats", "performance", "strategies"):
        read(Client().get(f"{MARKET}/{path}"))
    read(Client().get("/v1/regions"))

    assert asked == [250] * 7
