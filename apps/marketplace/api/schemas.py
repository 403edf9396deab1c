"""Shapes of the fixed /v1 contract for offers. Shape is checked here, truth in services."""

from typing import Annotated, Literal
from uuid import UUID

from ninja import Schema
from pydantic import AwareDatetime, Field

from aitbc.core.schema import Amount, Money, MoneyIn
from apps.gpu.api.schemas import Kind, Name, Strict

State = Literal["listed", "paused", "suspended", "delisted"]
Region = Annotated[str, Field(min_length=1, max_length=40, pattern=r"^[^\x00]*$")]
Gigabytes = Annotated[float, Field(gt=0, le=100_000, allow_inf_nan=False)]
MEASURED = "By the platform's hardware challenge; null until it was measured."


class PriceIn(Strict):
    on_demand: MoneyIn = Field(description="Per device second.")


class SlaIn(Strict):
    """Behind it stands the provider's bond; the credits are in docs/market.md."""

    availability: Annotated[float, Field(gt=0, le=1)] = Field(description="Share of the minutes, to four digits.")
    only: bool = Field(False, description="Do not sell while the free bond does not cover the credit.")


class OfferIn(Strict):
    price: PriceIn
    sla: SlaIn | None = None
    devices: Annotated[list[UUID], Field(max_length=64)] = Field([], description="Empty: all active ones.")
    kinds: Annotated[list[Kind], Field(max_length=50)] = Field([], description="Empty: all of the miner's.")
    available_from: AwareDatetime | None = None
    miner_id: UUID | None = Field(None, description="Needed when the key has no miner and its owner several.")


class OfferPatch(Strict):
    """What is left out, or null, stays as it is."""

    price: PriceIn | None = None
    sla: SlaIn | None = None
    kinds: Annotated[list[Kind], Field(min_length=1, max_length=50)] | None = None
    available_from: AwareDatetime | None = None
    state: Literal["listed", "paused"] | None = None


class SearchIn(Schema):
    model: Name | None = Field(None, description="Exact, in any case.")
    min_vram_gb: Gigabytes | None = None
    kind: Kind | None = Field(None, description="A job kind that it must run.")
    region: Region | None = None
    max_price: Amount | None = Field(None, description="AIT per device second.")
    verified: bool | None = None
    state: State = "listed"
    sort: Literal["price", "-price", "memory", "newest"] = Field("price", description="`memory`: most first.")
    count: Literal["exact", "none"] = "none"
    cursor: Annotated[str, Field(max_length=300, pattern=r"^[A-Za-z0-9_-]*$")] | None = None
    limit: Annotated[int, Field(ge=1, le=200)] = 50


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
    region: str
    kinds: list[str]
    reliability: Reliability | None = Field(description="Null until it was measured; never estimated.")
    dl_score: float | None = Field(description="Null until it was measured; never estimated.")
    verified: bool = Field(description="Every device passed the platform's hardware challenge.")
    state: State
    reason: str | None = Field(description="Why it is not listed; null when it is.")
    available_from: AwareDatetime
    created_at: AwareDatetime


class OfferList(Schema):
    items: list[OfferOut]
    next: str | None
    total: int | None = Field(description="With count=exact: how many offers fit, on all pages.")
