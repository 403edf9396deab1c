"""Shapes of the /v1 contract for money."""

from datetime import datetime
from uuid import UUID

from ninja import Schema

from aitbc.core.schema import Money


class BalanceOut(Schema):
    asset: str
    available: str
    held: str
    maturing: str


class BalanceList(Schema):
    items: list[BalanceOut]
    next: str | None


class EntryOut(Schema):
    id: int
    transfer: UUID
    kind: str
    account: str
    amount: str
    reference: UUID | None
    created_at: datetime


class EntryList(Schema):
    items: list[EntryOut]
    next: str | None


class PaymentOut(Schema):
    id: UUID
    job: UUID
    state: str
    held: Money
    released: Money
    refunded: Money
    fee: Money
    created_at: datetime
    resolved_at: datetime | None
    matures_at: datetime | None
