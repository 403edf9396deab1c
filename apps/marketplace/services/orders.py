"""Quotes, orders and bonds. Their rules, money and documents (JSON text) are in `sql/{quotes,orders,bonds}.sql`.

Amounts in smallest units; `user=None` is the platform. Refusals are `trading_refuse` there: NotFound, Invalid and
Conflict with their codes.
"""

from collections import Counter
from typing import Any, Final
from uuid import UUID

import orjson
import structlog

from aitbc.core.errors import Conflict
from apps.trading.services.escrow import call

log = structlog.get_logger(__name__)
TIMERS: Final = ("quote_next", "order_next", "bond_next", "auction_next")


def quote(*, client: UUID, ask: dict[str, Any]) -> str:
    """A price for `ask` (see `offer_unmet` in `sql/quotes.sql`), with its devices kept for it.

    Conflict `quote.no_match` says in `reasons` how many offers each wish excludes.
    """
    text = orjson.dumps(ask, default=str).decode()
    try:
        return str(call("quote_make", client, text))
    except Conflict as error:
        if error.code == "quote.no_match":
            error.context["reasons"] = orjson.loads(call("quote_reasons", client, text))
        raise


def accept(*, client: UUID, quote: UUID) -> str:
    """The order, escrowed and with its bond reserved; of two accepts one is Conflict."""
    return str(call("quote_accept", client, quote))


def cancel(*, user: UUID | None, order: UUID, reason: str = "") -> str:
    """By client, provider or platform. A second cancel changes nothing."""
    return str(call("order_cancel", user, order, reason))


def run_due(limit: int = 2000) -> dict[str, int]:
    """What time does to quotes, orders and bonds, one at a time -> how many of each."""
    done: Counter[str] = Counter()
    for timer in TIMERS:
        while done.total() < limit and (what := call(timer)) is not None:
            done[what] += 1
    if done["stuck"]:
        log.critical("orders could not be handled; each waits a minute", orders=done["stuck"])
    return {**done}
