"""Search: the filter language, a total order, cursor pages, in one call of sql/find.sql, which has the ways to go."""

from typing import Final, Literal
from uuid import UUID

import orjson

from aitbc.core import db
from aitbc.core.errors import Invalid, NotFound
from aitbc.core.pagination import decode
from apps.marketplace.selectors.filters import Filter
from apps.trading.services.escrow import call

PUBLIC_READ_MS = 250
FEW: Final = 3_000  # so many are looked up and sorted without further ado
WALK: Final = 10_000  # so many are walked past in order before the rest is looked up
Order = Literal["score", "price", "-price", "price_per_tflops", "reliability", "memory", "newest"]
_ON_SALE = "o.state = 'listed' AND (o.expires_at IS NULL OR o.expires_at > statement_timestamp())"


def on_sale(wanted: Filter, sql: str) -> str:
    """Who does not speak of states means what is on sale."""
    return sql if "state" in wanted.named else f"{_ON_SALE} AND {sql}"


def search(*, q: str, sort: Order, cursor: str | None, limit: int, count: bool, explain: bool = False) -> str:
    """JSON text `{items, next, total, explain}`. `total`, exact, is null unless `count`; `explain` tells of each
    top-level filter how many fit it alone, and how many would fit without it. Unavailable past 250 ms."""
    wanted, key = Filter(q), decode(cursor, 3)
    after = (str(key[1]), str(key[2])) if key else (None, None)
    if key and (key[0] != sort or not f"{after[0]}{after[1]}".isprintable()):
        wrong = {"loc": ["query", "cursor"], "msg": "made by another sort order"}
        raise Invalid("request.cursor", "this cursor is not one of this sort order", errors=[wrong])
    told = [{"filter": q[at:end], "position": at} for _, at, end in wanted.parts] if explain else None
    base, parts = on_sale(wanted, "true"), [part for part, _, _ in wanted.parts]
    page = (wanted.of_class, wanted.values, base, sort, *after, limit, count, FEW, WALK)
    reasons = (orjson.dumps(told).decode() if told is not None else None, parts)
    with db.bounded(PUBLIC_READ_MS):
        return str(call("marketplace_find", wanted.sql, *page, *reasons))


def offer_document(offer_id: UUID) -> str:
    found = db.row("SELECT marketplace_offer_document(o)::text FROM marketplace_offer o WHERE o.id = %s", (offer_id,))
    if found is None:
        raise NotFound("offer.unknown", "there is no such offer")
    return str(found[0])
