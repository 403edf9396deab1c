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
MOST_EXPLAINED: Final = 16
Order = Literal["score", "price", "-price", "price_per_tflops", "reliability", "memory", "newest"]
_ON_SALE = "o.state = 'listed' AND (o.expires_at IS NULL OR o.expires_at > statement_timestamp())"


def on_sale(wanted: Filter, sql: str) -> str:
    """Who does not speak of states means what is on sale."""
    return sql if "state" in wanted.named else f"{_ON_SALE} AND {sql}"


def search(*, q: str, sort: Order, cursor: str | None, limit: int, count: bool, explain: bool = False) -> str:
    """JSON text `{items, next, total, explain}`. `total`, exact, is null unless `count`; `explain` tells of each
    top-level filter how many fit it alone, and how many would fit without it. Unavailable past 250 ms."""
    wanted, (made_by, key, last) = Filter(q), decode(cursor, 3) or (sort, None, None)
    if made_by != sort:
        raise Invalid(
            "request.cursor", "this cursor is of another order", errors=[{"loc": ["query", "cursor"], "msg": ""}]
        )
    parts = wanted.parts if explain else []
    if len(parts) > MOST_EXPLAINED:
        raise Invalid("filter.too_many", f"at most {MOST_EXPLAINED} filters joined by and are explained")
    told = [{"filter": q[part.at : part.end], "position": part.at} for part in parts]
    alone = [on_sale(wanted, part.sql) for part in parts]
    others = [on_sale(wanted, " AND ".join(p.sql for p in parts if p is not part) or "true") for part in parts]
    where, listed = on_sale(wanted, wanted.made.sql), "state" not in wanted.named
    page = (sort, key, last and str(last), limit, count, FEW, WALK)
    reasons = (orjson.dumps(told).decode(), alone, others) if explain else (None, None, None)
    with db.bounded(PUBLIC_READ_MS):
        return str(call("marketplace_find", where, wanted.made.of_class, wanted.values, listed, *page, *reasons))


def offer_document(offer_id: UUID) -> str:
    found = db.row("SELECT marketplace_offer_document(o)::text FROM marketplace_offer o WHERE o.id = %s", (offer_id,))
    if found is None:
        raise NotFound("offer.unknown", "there is no such offer")
    text: str = found[0]
    return text
