"""Shapes of the fixed /v1 contract for offers. Shape is checked here, truth in services."""

from typing import Annotated, Literal
from uuid import UUID

from ninja import Schema
from pydantic import AwareDatetime, Field

from aitbc.core.schema import Money, MoneyIn
from apps.gpu.api.schemas import Kind, Name, Strict
from apps.marketplace.selectors.offers import Order

State = Literal["listed", "paused", "suspended", "delisted"]
Seconds = Annotated[int, Field(ge=0, le=366 * 86_400)]
Region = Annotated[str, Field(min_length=1, max_length=40, pattern=r"^[^\x00]*$")]
Gigabytes = Annotated[float, Field(gt=0, le=100_000, allow_inf_nan=False)]
Filter = Annotated[str, Field(description="In the filter language of docs/search.md; empty: all.")]
MEASURED = "By the platform's hardware challenge; null until it was measured."


class PriceIn(Strict):
    """Per device second."""

    on_demand: MoneyIn
    spot: MoneyIn | None = Field(None, description="Least that a bid must be; 0: not sold as spot.")
    reserved_discount_bps: Annotated[int, Field(ge=0, le=9999)] | None = Field(None, description="0: not reserved.")


class SlaIn(Strict):
    """Behind it stands the provider's bond; the credits are in docs/market.md."""

    availability: Annotated[float, Field(gt=0, le=1)] = Field(description="Share of the minutes, to four digits.")
    only: bool = Field(False, description="Do not sell while the free bond does not cover the credit.")


class PricePatch(PriceIn):
    on_demand: MoneyIn | None = None  # type: ignore[assignment]  # a change may leave it as it is


class TermsIn(Strict):
    min_seconds: Seconds | None = Field(None, description="Of one order; 0: any.")
    max_seconds: Seconds | None = Field(None, description="Of one order; 0: any.")
    available_from: AwareDatetime | None = None
    expires_at: AwareDatetime | None = Field(None, description="Withdrawn for good then.")


class OfferIn(TermsIn):
    price: PriceIn
    sla: SlaIn | None = None
    devices: Annotated[list[UUID], Field(max_length=64)] = Field([], description="Empty: all active ones.")
    kinds: Annotated[list[Kind], Field(max_length=50)] = Field([], description="Empty: all of the miner's.")
    miner_id: UUID | None = Field(None, description="Needed when the key has no miner and its owner several.")


class OfferPatch(TermsIn):
    """What is left out, or null, stays as it is."""

    price: PricePatch | None = None
    sla: SlaIn | None = None
    kinds: Annotated[list[Kind], Field(min_length=1, max_length=50)] | None = None
    state: Literal["listed", "paused"] | None = None


class FindIn(Schema):
    q: Filter = ""
    sort: Order = Field("price", description="Best first: least price, most of the others.")
    count: Literal["exact", "none"] = "none"
    explain: bool = Field(False, description="Say of each filter joined by `and` how many offers it leaves.")
    cursor: Annotated[str, Field(max_length=300, pattern=r"^[A-Za-z0-9_-]*$")] | None = None
    limit: Annotated[int, Field(ge=1, le=200)] = 50


class SearchIn(Strict):
    name: Name
    q: Filter
    alert: bool = Field(False, description="Tell of offers that newly match, by the event `search.matched`.")


class SearchOut(SearchIn):
    id: UUID
    created_at: AwareDatetime


class OfferedDevice(Schema):
    id: UUID
    kind: str
    model: str
    memory_mb: int
    cuda: str | None
    verified: bool
    tflops: float | None = Field(description=MEASURED)
    memory_gbps: float | None = Field(description=MEASURED)


class Price(Schema):
    on_demand: Money = Field(description="Per device second.")
    spot: Money | None = Field(description="Null: not sold as spot.")
    reserved: Money | None = Field(description="Null: not sold as reserved.")


class Reliability(Schema):
    score: float
    low: float
    high: float
    samples: int


class OfferedSla(Schema):
    availability: float
    only: bool


class OfferOut(Schema):
    id: UUID
    miner_id: UUID
    devices: list[OfferedDevice]
    model: str
    device_count: int
    memory_gb: float = Field(description="Of the smallest device.")
    price: Price
    sla: OfferedSla | None = Field(description="Null: sold without one.")
    reserved_discount_bps: int | None
    min_seconds: int | None
    max_seconds: int | None
    region: str
    kinds: list[str]
    reliability: Reliability | None = Field(description="Null until it was measured; never estimated.")
    dl_score: float | None = Field(description="Null until it was measured; never estimated.")
    score: float = Field(description="0 to 100, see docs/search.md.")
    verified: bool = Field(description="Every device passed the platform's hardware challenge.")
    state: State
    reason: str | None = Field(description="Why it is not listed; null when it is.")
    available_from: AwareDatetime
    expires_at: AwareDatetime | None
    created_at: AwareDatetime


class Explained(Schema):
    """Counts end at 1000."""

    filter: str
    position: int
    fits: int = Field(description="Offers that fit this filter alone.")
    without: int = Field(description="Offers that fit all the other filters.")


class MatchOut(Schema):
    at: AwareDatetime
    offer: OfferOut


class OfferList(Schema):
    items: list[OfferOut]
    next: str | None
    total: int | None = Field(description="With count=exact: how many offers fit, on all pages.")
    explain: list[Explained] | None = Field(description="With explain=1.")
