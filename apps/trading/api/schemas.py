"""Shapes of the /v1 contract for money."""

from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

from ninja import Schema
from pydantic import Field

from aitbc.core.schema import Money, MoneyIn, Strict, Text


class BalanceOut(Schema):
    asset: str
    available: str
    held: str
    maturing: str


class EntryOut(Schema):
    id: int
    transfer: UUID
    kind: str
    account: str
    amount: str
    reference: UUID | None
    created_at: datetime


class PaymentIn(Strict):
    """A dispute needs a reason. No amount means all that the job cost."""

    job_id: UUID
    reason: Text = ""
    amount: MoneyIn | None = None


class DisputeOut(Schema):
    claimed: Money
    reason: str
    opened_at: datetime
    refund: Money | None
    note: str | None
    resolved_at: datetime | None


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
    matured_at: datetime | None
    dispute: DisputeOut | None


class DepositAddressOut(Schema):
    asset: str
    chain: str
    address: str


class DepositOut(Money):
    id: UUID
    chain: str
    address: str
    tx_hash: str
    block: int
    credited_at: datetime


class WithdrawalIn(Strict):
    amount: str
    address: str
    asset: Literal["AIT", "CREDIT"] = "AIT"
    chain: str | None = None


class WithdrawalOut(Money):
    """`not_before`: a new address waits until then. `review_until`: a second person must approve it by then.
    `tx_hash` once it is final on the chain."""

    id: UUID
    chain: str
    address: str
    state: str
    created_at: datetime
    not_before: datetime
    review_until: datetime | None
    tx_hash: str | None
    block: int | None
    resolved_at: datetime | None


class SettlementOut(Schema):
    id: UUID
    state: str
    root: str
    receipts: int
    tx_hash: str | None
    block: int | None
    gas_used: int | None
    chain: str
    created_at: datetime
    finalized_at: datetime | None


class ReservesOut(Schema):
    """`difference`: what the chain holds more (or less) than the ledger owes; anything but 0 is an alarm."""

    asset: str
    ledger_liabilities: str
    onchain: str
    pending: str
    difference: str
    chain: str
    block: int
    checked_at: datetime


class LiabilitiesOut(ReservesOut):
    """`total`: what all `users` are owed, in smallest units; the sum at the `root` of the tree."""

    root: str
    total: str
    users: int
    covered: bool


class SiblingOut(Schema):
    side: Literal["left", "right"]
    hash: str
    sum: str


class LiabilityProofOut(Schema):
    """See `apps/trading/liability_tree.py`, which checks it; amounts in smallest units."""

    user: UUID
    salt: str
    amount: str
    path: list[SiblingOut]
    root: str
    total: str


class PayoutTargetIn(Schema):
    address: str | None


class PayoutTargetOut(Schema):
    """Without an address earnings stay in the ledger; a new one is paid only after a wait."""

    address: str | None
    chain: str
    set_at: datetime | None


class ClaimOut(Schema):
    """The arguments of the settlement contract's `claim`."""

    batch_id: str
    index: int
    account: str
    units: str
    proof: list[str]


class PayoutOut(Money):
    batch: UUID
    chain: str
    state: str
    claim: ClaimOut | None
    claim_tx: str | None
    claimed_at: datetime | None


class Topup(Strict):
    amount: MoneyIn
    cap: MoneyIn


class StreamIn(Strict):
    """Payees have rates per second. `warn_seconds` before its end it is announced, or topped up."""

    payees: Annotated[dict[UUID, MoneyIn], Field(min_length=1, max_length=100)]
    deposit: MoneyIn
    warn_seconds: Annotated[int, Field(ge=0, le=31_536_000)] = 3600
    topup: Topup | None = None


class StreamPayeeOut(Schema):
    payee: UUID
    rate: Money
    paid: Money
    fee: Money
    accrued: Money


class StreamDepositOut(Money):
    depositor: UUID
    returned: Money


class StreamOut(Schema):
    """`funds` are left now, less what `accrued` and is not paid yet; at this `rate` they end at `ends_at`."""

    id: UUID
    owner: UUID
    state: Literal["open", "closed", "ended"]
    rate: Money
    funds: Money
    ends_at: datetime | None
    warn_seconds: int
    topup: Topup | None
    payees: list[StreamPayeeOut]
    deposits: list[StreamDepositOut]
    created_at: datetime
    closed_at: datetime | None
