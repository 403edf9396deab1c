"""`/v1/marketplace/index`, `stats`, strategies, and `/v1/regions`: docs/pricing.md has each member; null is unknown."""

from typing import Annotated, Any, Literal
from uuid import UUID

from django.http import HttpRequest, HttpResponse
from ninja import Query, Router, Schema
from pydantic import AwareDatetime, Field, create_model

from aitbc.core import db
from aitbc.core.auth import PartyKey, caller
from aitbc.core.idempotency import idempotent, json_response
from aitbc.core.schema import Money, MoneyIn, Strict, errors, list_of
from apps.gpu.api.schemas import Name
from apps.marketplace.api.offers import ONE, write
from apps.marketplace.api.schemas import Region
from apps.marketplace.selectors.offers import PUBLIC_READ_MS
from apps.marketplace.services import timing
from apps.trading.services.escrow import call


def shape(name: str, **members: Any) -> Any:
    return create_model(name, __base__=Schema, **{m: (kind, ...) for m, kind in members.items()})  # type: ignore[call-overload]


When, Later, Text, Number, Cash = AwareDatetime, AwareDatetime | None, str | None, float | None, Money | None
Row = dict[str, Any]
Place = Region | None
Period = Literal["1d", "7d", "30d", "90d"]
By = Literal["region", "provider"]
Ahead = Annotated[int, Query(ge=1, le=168)]
After = Annotated[int, Query(ge=1, lt=2**63)] | None
Limit = Annotated[int, Query(ge=1, le=200)]
Trips = Annotated[list[Annotated[float, Field(ge=0.001, le=100_000)]], Field(max_length=20)]
Figures = shape("Figures", p10=Money, p50=Money, p90=Money, mean=Money, weight=float, count=int, at=When)
Trend = shape("Trend", status=str, points=int, slope=Number, t=Number)
Item = shape("IndexItem", model=str, trend=Trend, traded=Figures | None, listed=Figures | None)
Point = shape("HistoryPoint", at=When, traded=Figures | None, listed=Figures | None)
IndexOut = shape("IndexOut", region=Text, items=list[Item])  # type: ignore[valid-type]
HistoryOut = shape("HistoryOut", model=str, region=Text, resolution=str, points=list[Point])  # type: ignore[valid-type]
ForecastOut = shape(
    "ForecastOut", status=str, method=Text, observed_hours=int, needed_hours=int, points=list[Row], backtest=Row | None,
    elasticity=Row,
)  # fmt: skip
StatsOut = shape(
    "StatsOut", region=Text, since=When, upto=When, offers=int, devices=int, slots=int, busy=int, price=Figures | None,
    jobs=dict[str, int], device_seconds=float, billed=Money, fees=Money, paid=Money, success_rate=Number, trend=Trend,
)  # fmt: skip
Rows, BulkOut = shape("Rows", items=list[Row]), shape("BulkOut", dry_run=bool, items=list[Row])
TimesOut = shape("TimesOut", by=str, seconds=int, search_p95_ms=int | None, items=list[Row], levels=list[Row])
StrategyOut = shape(
    "StrategyOut", offer_id=UUID, strategy=str, base=Money, cost=Cash, margin_bps=int, target_bps=int, min=Money,
    max=Money, step_bps=int, interval_seconds=int, frozen_until=Later, due_at=When, price=Money, next=Row,
)  # fmt: skip
Change = shape("PriceChangeOut", id=int, at=When, before=Cash, after=Money, strategy=Text, told=Row | None)
StandingOut = shape("StandingOut", offer_id=UUID, region=str, region_open=bool, flags=list[dict[str, str]])
BestOut = shape("BestOut", best=Text, candidates=list[Row])


class StrategyIn(Strict):
    strategy: Annotated[str, Field(pattern=r"^[a-z_]{1,24}$")]
    base: MoneyIn | None = Field(None, description="Null: the price now.")
    cost: MoneyIn | None = None
    margin_bps: Annotated[int, Field(ge=0, le=100_000)] = 0
    target_bps: Annotated[int, Field(ge=0, le=10_000)] = 7500
    min: MoneyIn
    max: MoneyIn
    step_bps: Annotated[int, Field(ge=1, le=5000)] = 1000
    interval_seconds: Annotated[int, Field(ge=60, le=86_400)] = 300


class StrategyUpdate(StrategyIn):
    offer_id: UUID


class BulkIn(Strict):
    updates: Annotated[list[StrategyUpdate], Field(min_length=1, max_length=200)]
    dry_run: bool = False


class LatencyIn(Strict):
    samples: Annotated[dict[Region, Trips], Field(max_length=100, description="Milliseconds of round trips.")]


router, regions, READ = Router(tags=["prices"]), Router(tags=["regions"]), PartyKey("jobs:read")
OWN, STRATEGY = {200: Rows} | errors(403, 409), {200: StrategyOut} | errors(403, 404, 409)
PRICES = {200: list_of(Change, int)} | errors(403, 404)


def shown(function: str, *arguments: object) -> HttpResponse:
    with db.bounded(PUBLIC_READ_MS):
        return json_response(call(function, *arguments))


def public(shape: Any, summary: str, *statuses: int) -> dict[str, Any]:
    return {"auth": None, "response": {200: shape} | errors(*statuses), "summary": summary}


def seller(request: HttpRequest) -> tuple[object, ...]:
    who = caller(request)
    return who.user_id, who.key_id, who.has("offers:write")


@router.get("/index", **public(IndexOut, "Prices traded and listed now"))
def price_index(request: HttpRequest, model: Name | None = None, region: Place = None) -> HttpResponse:
    return shown("market_index", model, region or "")


@router.get("/index/history", **public(HistoryOut, "Prices as they were"))
def price_history(request: HttpRequest, model: Name, region: Place = None, period: Period = "7d") -> HttpResponse:
    return shown("market_history", model, region or "", int(period[:-1]))


@router.get("/index/forecast", **public(ForecastOut, "A forecast of the traded median"))
def price_forecast(request: HttpRequest, model: Name, region: Place = None, hours: Ahead = 24) -> HttpResponse:
    """With its 95 % interval, the errors of past ones, and how sales answer to the price. Of enough history only."""
    return shown("market_forecast", model, region or "", hours)


@router.get("/stats", **public(StatsOut, "The market in figures"))
def stats(request: HttpRequest, period: Period = "1d", region: Place = None) -> HttpResponse:
    """Whole hours up to now. Sums are those of the jobs that ended in them."""
    return shown("market_stats", int(period[:-1]) * 24, region or "")


@router.get("/performance", **public(TimesOut, "Measured times, and alerts"))
def performance(request: HttpRequest, period: Period = "1d", by: By = "region") -> HttpResponse:
    """Percentiles of submission to lease, to start, to end, of completed jobs; the last hour's levels and alerts."""
    return shown("market_performance", int(period[:-1]) * 86_400, by, timing.p95("search"))


@router.get("/recommendations", auth=write, response=OWN, summary="What the market suggests for your offers")
def recommendations(request: HttpRequest) -> HttpResponse:
    return json_response(call("market_advice", caller(request).user_id))


@router.get("/strategies", **public(Rows, "Strategies and their numbers"))
def presets(request: HttpRequest) -> HttpResponse:
    return shown("market_presets")


@router.post("/strategies/bulk", auth=write, response={200: BulkOut} | errors(403, 409), summary="Set many strategies")
@idempotent("strategies.bulk")
def bulk(request: HttpRequest, body: BulkIn) -> tuple[int, str]:
    """Each item has its own `code`: what one is refused for does not stop the others. A dry run changes nothing."""
    return 200, call("strategy_bulk", *seller(request), body.model_dump_json(), body.dry_run)


@router.get(f"{ONE}/strategy", auth=write, response=STRATEGY, summary="An offer's strategy and its next price")
def get_strategy(request: HttpRequest, offer_id: UUID) -> HttpResponse:
    return json_response(call("strategy_shown", *seller(request), offer_id))


@router.put(f"{ONE}/strategy", auth=write, response=STRATEGY, summary="Set an offer's strategy")
def put_strategy(request: HttpRequest, offer_id: UUID, body: StrategyIn) -> HttpResponse:
    return json_response(call("strategy_set", *seller(request), offer_id, body.model_dump_json()))


@router.get(f"{ONE}/prices", auth=READ, response=PRICES, summary="Prices that an offer had")
def prices(request: HttpRequest, offer_id: UUID, cursor: After = None, limit: Limit = 50) -> HttpResponse:
    """Newest first. What a strategy was `told`, and its factors, are shown to its seller only."""
    return json_response(call("offer_prices", *seller(request), offer_id, cursor, limit))


@router.get(f"{ONE}/standing", **public(StandingOut, "An offer before the market's rules", 404))
def standing(request: HttpRequest, offer_id: UUID) -> HttpResponse:
    return shown("offer_standing", offer_id)


@regions.get("", **public(Rows, "Regions"))
def list_regions(request: HttpRequest) -> HttpResponse:
    return shown("regions_shown")


@regions.get("/latency", auth=READ, response=OWN, summary="What to measure, and what you measured")
def get_latency(request: HttpRequest) -> HttpResponse:
    return json_response(call("latency_shown", caller(request).user_id))


@regions.post("/latency", auth=READ, response=OWN, summary="Note latencies that you measured")
@idempotent("regions.latency")
def post_latency(request: HttpRequest, body: LatencyIn) -> tuple[int, str]:
    """Yours only: they choose for you and count for nobody else. The last 20 of a region are kept."""
    return 200, call("latency_note", caller(request).user_id, body.model_dump_json())


@regions.get("/best", auth=READ, response={200: BestOut} | errors(403), summary="The best region for you")
def best_region(request: HttpRequest, model: Name | None = None) -> HttpResponse:
    """Healthiest, then nearest as you measured, then least busy; each candidate says why it stands where it does."""
    return json_response(call("regions_best", caller(request).user_id, model))
