"""Shapes of quotes, orders and bonds in the /v1 contract."""

from datetime import UTC
from typing import Annotated, Any, Literal
from uuid import UUID

from ninja import Schema
from pydantic import AwareDatetime, Field

from aitbc.core.schema import Money, MoneyIn, Strict
from apps.gpu.api.schemas import Kind, Name
from apps.marketplace.api.schemas import Gigabytes, Region

Seconds = Annotated[int, Field(ge=1, le=31_622_400)]
OrderState = Literal["accepted", "active", "notice", "completed", "canceled", "missed", "failed", "evicted"]
OrderType = Literal["on_demand", "spot", "reserved", "auction"]


class QuoteConstraints(Strict):
    model: Name | None = Field(None, description="Exact, in any case.")
    min_vram_gb: Gigabytes | None = None
    region: Region | None = None
    devices: Annotated[int, Field(ge=1, le=64)] | None = Field(None, description="Exactly so many.")
    verified: bool | None = None
    max_price: MoneyIn | None = Field(None, description="Per device second.")


class QuoteIn(Strict):
    offer_id: UUID | None = None
    constraints: QuoteConstraints = Field(default_factory=lambda: QuoteConstraints.model_validate({}))
    seconds: Seconds
    kind: Kind | None = Field(None, description="A job kind that it must run.")
    type: Literal["on_demand", "spot", "reserved"] = "on_demand"
    bid: MoneyIn | None = Field(None, description="Spot: per device second; that is what it costs.")
    starts_at: AwareDatetime | None = Field(None, description="Reserved: when it begins, within a year.")
    failover: bool = Field(False, description="Go on elsewhere when it ends before its time.")

    def ask(self) -> dict[str, Any]:
        """As `quote_make` takes it."""
        wants = self.constraints.dict(exclude={"min_vram_gb", "max_price"}) | {"kind": self.kind}
        if self.constraints.min_vram_gb:
            wants["min_vram_mb"] = self.constraints.min_vram_gb * 1024
        if self.constraints.max_price:
            wants["max_price"] = str(self.constraints.max_price.units)
        asked = self.dict(include={"seconds", "type", "failover"}) | {"offer": self.offer_id}
        # In UTC: PostgreSQL reads no offset beyond 15:59.
        begins = self.starts_at.astimezone(UTC) if self.starts_at else None
        asked |= {"bid": str(self.bid.units) if self.bid else None, "starts_at": begins}
        return asked | {"wants": {name: value for name, value in wants.items() if value is not None}}


class Breakdown(Schema):
    """Adds up to the total."""

    compute: Money
    storage: Money
    egress: Money
    fee: Money


class LetOut(Schema):
    id: UUID
    type: OrderType
    offer_id: UUID
    miner_id: UUID
    devices: list[UUID]
    seconds: int
    rate: Money = Field(description="Per second, for all devices, everything included.")
    total: Money
    bid: Money | None
    starts_at: AwareDatetime
    created_at: AwareDatetime


class QuoteOut(LetOut):
    state: Literal["open", "accepted", "expired", "forfeited"]
    breakdown: Breakdown
    deposit: Money = Field(description="Held until it is accepted.")
    firm: bool = Field(description="False: spot leases must go first, and who accepts first has the devices.")
    sla_availability: float | None
    expires_at: AwareDatetime
    start_deadline_seconds: int


class Sla(Schema):
    availability: float = Field(description="Promised.")
    max_credit: Money = Field(description="Reserved out of the provider's bond.")
    credit: Money | None = Field(description="Null until it is measured.")


class OrderOut(LetOut):
    """At its end paid + fee + refunded = total."""

    state: OrderState
    client: UUID
    provider: UUID
    paid: Money
    fee: Money
    refunded: Money
    stream: UUID | None
    failover: bool
    start_deadline: AwareDatetime
    started_at: AwareDatetime | None
    ends_at: AwareDatetime
    ended_at: AwareDatetime | None
    ended_by: Literal["client", "provider", "platform"] | None
    reason: str | None
    sla: Sla | None = Field(description="Null: sold without one.")
    evicted_by: bool = Field(description="Whether a better bid ends it.")
    compensation: Money | None
    moved_from: UUID | None
    moved_to: UUID | None


class Sums(Schema):
    """Of all orders that the filters leave, not only this page."""

    orders: int
    seconds: int
    total: Money
    paid: Money
    fee: Money
    refunded: Money
    credit: Money
    compensation: Money


class OrderList(Schema):
    items: list[OrderOut]
    next: UUID | None
    sums: Sums


class CancelIn(Strict):
    reason: Annotated[str, Field(max_length=300, pattern=r"^[^\x00]*$")] = ""


class ExtendIn(Strict):
    seconds: Seconds


class BondOut(Schema):
    amount: Money
    free: Money
    reserved: Money = Field(description="By orders under way.")
    withdrawals: list[dict[str, Any]] = Field(description="`id`, `amount`, `due_at` of each that waits.")
