"""Search: simple filters, a total order, cursor pages; one SQL statement a page."""

import math
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import orjson

from aitbc.core import db, money
from aitbc.core.errors import Invalid, NotFound
from aitbc.core.pagination import decode, encode

PUBLIC_READ_MS = 250
_FROM = "FROM marketplace_offer o WHERE "
# sort -> (column, direction). The id breaks ties in the same direction, so one index serves both ways.
SORTS = {
    "price": ("price", "ASC"),
    "-price": ("price", "DESC"),
    "memory": ("memory_mb", "DESC"),
    "newest": ("id", "DESC"),
}
_NUMBERS = {"price": ("numeric", money.MAX_UNITS), "memory_mb": ("int", 2**31 - 1)}


@dataclass(frozen=True, slots=True)
class Filters:
    """All that are given must hold. `max_price` is a decimal string per device second."""

    state: str = "listed"
    model: str | None = None
    min_vram_gb: float | None = None
    kind: str | None = None
    region: str | None = None
    max_price: str | None = None
    verified: bool | None = None


def search(*, filters: Filters, sort: str, cursor: str | None, limit: int, count: bool) -> str:
    """JSON text `{items, next, total}`; `total` is null unless `count`. Unavailable past 250 ms."""
    where, params = _where(filters)
    after, bound = _after(sort, cursor)
    column, direction = SORTS[sort]
    order = f"o.{column} {direction}" + ("" if column == "id" else f", o.id {direction}")
    page = f"""SELECT o.{column}::text, o.id, marketplace_offer_document(o)::text {_FROM} {where} {after}
               ORDER BY {order} LIMIT %s"""
    with db.bounded(PUBLIC_READ_MS):
        found = db.rows(page, (*params, *bound, limit + 1))
        total = db.value(f"SELECT count(*) {_FROM} {where}", params) if count else None
    items = ",".join(document for _, _, document in found[:limit])
    more = encode(sort, *found[limit - 1][:2]) if len(found) > limit else None
    tail = orjson.dumps({"next": more, "total": total}).decode()
    return f'{{"items":[{items}],{tail[1:]}'


def offer_document(offer_id: UUID) -> str:
    found = db.row(f"SELECT marketplace_offer_document(o)::text {_FROM} o.id = %s", (offer_id,))
    if found is None:
        raise NotFound("offer.unknown", "there is no such offer")
    text: str = found[0]
    return text


def _where(filters: Filters) -> tuple[str, list[Any]]:
    memory = None if filters.min_vram_gb is None else math.ceil(filters.min_vram_gb * 1024)
    price = None if filters.max_price is None else money.units(filters.max_price, 18)
    tests: list[tuple[str, Any]] = [
        ("o.state = %s", filters.state),
        ("lower(o.model) = lower(%s)", filters.model),
        ("o.memory_mb >= %s::int", memory),
        ("o.kinds @> ARRAY[%s::varchar]", filters.kind),
        ("o.region = %s", filters.region),
        ("o.price <= %s::numeric", price),
        ("o.verified = %s", filters.verified),
    ]
    given = [(test, value) for test, value in tests if value is not None]
    return " AND ".join(test for test, _ in given), [value for _, value in given]


def _after(sort: str, cursor: str | None) -> tuple[str, list[Any]]:
    """Only what comes behind the cursor's row; a cursor belongs to the order that made it."""
    key = decode(cursor, 3)
    if key is None:
        return "", []
    made_by, value, last = key
    if made_by != sort:
        raise _bad_cursor("this cursor belongs to another sort order")
    column, direction = SORTS[sort]
    sign = ">" if direction == "ASC" else "<"
    if column == "id":
        return f"AND o.id {sign} %s::uuid", [_uuid(last)]
    kind, most = _NUMBERS[column]
    return f"AND (o.{column}, o.id) {sign} (%s::{kind}, %s::uuid)", [_number(value, most), _uuid(last)]


def _number(value: Any, most: int) -> int:
    plain = isinstance(value, str) and value.isascii() and value.isdecimal() and len(value) <= 38
    if not plain or int(value) > most:
        raise _bad_cursor("this cursor is not one of ours")
    return int(value)


def _uuid(value: Any) -> UUID:
    try:
        return UUID(str(value))
    except ValueError as error:
        raise _bad_cursor("this cursor is not one of ours") from error


def _bad_cursor(message: str) -> Invalid:
    return Invalid("request.cursor", message, errors=[{"loc": ["query", "cursor"], "msg": message}])
