"""Prepaid streams: money that runs to its payees by the second, until the funds are spent.

Amounts in smallest units, rates per second; documents are JSON text; `user=None` is the platform. Refusals
are `trading_refuse` in `sql/streams.sql`: NotFound, Forbidden, Invalid and Conflict with their codes.
"""

from collections import Counter
from collections.abc import Mapping
from typing import Literal
from uuid import UUID

import structlog

from aitbc.core.ids import uuid7
from apps.trading.services.escrow import call

Action = Literal["settle", "close"]
log = structlog.get_logger(__name__)


def open_stream(
    *,
    owner: UUID,
    payees: Mapping[UUID, int],
    deposit: int,
    warn_seconds: int = 3600,
    topup: int = 0,
    topup_cap: int = 0,
    stream: UUID | None = None,
) -> str:
    """Pay each of `payees` his rate from now on. So long before the end it is announced, and whole
    `topup` are taken from the owner's available balance, up to `topup_cap` in all (0: never)."""
    terms = (list(payees), list(payees.values()), deposit, warn_seconds, topup, topup_cap)
    return str(call("stream_open", stream or uuid7(), owner, *terms))


def deposit(*, user: UUID, stream: UUID, amount: int) -> str:
    """Anybody's money makes it last longer; what is not spent returns to the last depositor first."""
    return str(call("stream_deposit", user, stream, amount))


def set_rate(*, user: UUID | None, stream: UUID, payee: UUID, rate: int) -> str:
    """Add a payee, change his rate, or stop paying him (0)."""
    return str(call("stream_set_rate", user, stream, payee, rate))


def act(action: Action, *, user: UUID | None, stream: UUID) -> str:
    """Pay what has accrued until now; closing, its owner also returns the rest."""
    return str(call(f"stream_{action}", user, stream))


def document(*, user: UUID | None, stream: UUID) -> str:
    """Funds, rate and end as of now, for its owner, its payees and its depositors."""
    return str(call("stream_shown", user, stream))


def run_due(limit: int = 1000) -> dict[str, int]:
    """Top up, announce or end what is due, one at a time -> how many of each."""
    done: Counter[str] = Counter()
    while done.total() < limit and (what := call("stream_next")) is not None:
        done[what] += 1
    if done["stuck"]:
        log.critical("streams could not be handled; each waits a minute", streams=done["stuck"])
    return {**done}
