"""Search: the filter language, a total order, cursor pages. docs/search.md says what is promised.

There are three ways through a million offers: look up the few that fit and sort them; walk the classes of devices
that can fit, each in the order wanted; walk all in that order, up to a bound, and look up the rest.
The database's own estimate of how many fit decides, so a page costs about as much as it shows.
"""

import math
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

import orjson

from aitbc.core import db
from aitbc.core.errors import Invalid, NotFound
from aitbc.core.pagination import decode, encode
from apps.marketplace.selectors.filters import Condition, condition, top_level
from apps.marketplace.selectors.syntax import Node, parse

PUBLIC_READ_MS = 250
_TABLE = "marketplace_offer o"
_ON_SALE = "o.state = 'listed' AND (o.expires_at IS NULL OR o.expires_at > statement_timestamp())"
# One process, no compiler, and a page costs what memory costs: a search is too short for the rest.
_TUNED = """SELECT set_config('jit', 'off', true), set_config('max_parallel_workers_per_gather', '0', true),
  set_config('random_page_cost', '1.1', true), set_config('plan_cache_mode', 'force_custom_plan', true)"""
FEW: Final = 3_000  # so many are looked up and sorted without further ado
WALK: Final = 10_000  # so many are walked past in order before the rest is looked up
EXPLAINED: Final = 1_000  # counts of explanations end here
MOST_EXPLAINED: Final = 16


@dataclass(frozen=True, slots=True)
class Sort:
    """`key` is never null; the id breaks ties in the same direction, so one index serves both ways."""

    key: str
    cast: str
    descending: bool = False
    last: str = "Infinity"  # behind every key

    def order(self, key: str, last: str) -> str:
        direction = "DESC" if self.descending else "ASC"
        return f"ORDER BY {key} {direction}, {last} {direction}"


SORTS: Final = {
    "score": Sort("o.score", "float8", True, "-Infinity"),
    "price": Sort("o.price", "numeric"),
    "-price": Sort("o.price", "numeric", True, "-Infinity"),
    "price_per_tflops": Sort("coalesce(o.price_per_tflops, 'Infinity')", "float8"),
    "reliability": Sort("coalesce(o.reliability, -1)", "float8", True, "-Infinity"),
    "memory": Sort("o.memory_mb", "int8", True, "-1"),
    "newest": Sort("o.id", "uuid", True, str(UUID(int=0))),
}


def search(*, q: str, sort: str, cursor: str | None, limit: int, count: bool, explain: bool = False) -> str:
    """JSON text `{items, next, total, explain}`. `total`, exact, is null unless `count`; `explain` tells of each
    top-level filter how many fit it alone, and how many would fit without it. Unavailable past 250 ms."""
    tree = parse(q)
    wanted = condition(tree)
    after = _after(sort, cursor)
    with db.bounded(PUBLIC_READ_MS):
        db.rows(_TUNED)
        reach = _reach(tree, wanted)
        found = _page(wanted, reach, SORTS[sort], after, limit + 1) if reach.offers else []
        total = _count(wanted, reach) if count else None
        reasons = _explain(q, tree) if explain and tree else None
    items = ",".join(document for _, _, document in found[:limit])
    more = encode(sort, *found[limit - 1][:2]) if len(found) > limit else None
    tail = orjson.dumps({"next": more, "total": total, "explain": reasons}).decode()
    return f'{{"items":[{items}],{tail[1:]}'


def offer_document(offer_id: UUID) -> str:
    found = db.row(f"SELECT marketplace_offer_document(o)::text FROM {_TABLE} WHERE o.id = %s", (offer_id,))
    if found is None:
        raise NotFound("offer.unknown", "there is no such offer")
    text: str = found[0]
    return text


def where(wanted: Condition) -> str:
    """The condition in SQL: who does not speak of states means what is on sale."""
    return wanted.sql if "state" in wanted.named else f"{_ON_SALE} AND {wanted.sql}"


@dataclass(frozen=True, slots=True)
class Reach:
    """The classes that can fit (None: all), about how many offers are in them, and about how many of those fit."""

    classes: list[int] | None
    offers: float
    fitting: float

    def narrow(self, wanted: Condition) -> Condition:
        if self.classes is None:
            return wanted
        return Condition(f"o.class_id = ANY(%s::int[]) AND {wanted.sql}", [self.classes, *wanted.params], wanted.named)


def _reach(tree: Node | None, wanted: Condition) -> Reach:
    fits = condition(tree, of_class=True)
    ((classes, known, offers),) = db.rows(
        f"""SELECT coalesce(array_agg(id) FILTER (WHERE {fits.sql}), '{{}}'), count(*),
                   (SELECT greatest(reltuples, 1)::float8 FROM pg_class WHERE oid = 'marketplace_offer'::regclass)
              FROM marketplace_offer_class o""",
        fits.params,
    )
    if not classes:
        return Reach([], 0, 0)
    share = offers * len(classes) / known
    ((plan,),) = db.rows(f"EXPLAIN (FORMAT JSON) SELECT FROM {_TABLE} WHERE {where(wanted)}", wanted.params)
    expected = (orjson.loads(plan) if isinstance(plan, str) else plan)[0]["Plan"]["Plan Rows"]
    return Reach(None if len(classes) == known else classes, share, min(expected, share))


def _count(wanted: Condition, reach: Reach) -> int:
    narrowed = reach.narrow(wanted)
    return int(db.value(f"SELECT count(*) FROM {_TABLE} WHERE {where(narrowed)}", narrowed.params))


def _page(wanted: Condition, reach: Reach, sort: Sort, after: Condition, most: int) -> list[tuple[Any, ...]]:
    """Rows (key, id, document) in order."""
    way, params = _way(wanted, reach, sort, after, most)
    return db.rows(
        f"""WITH {way}
            SELECT page.key::text, page.id, marketplace_offer_json(o, d)::text
              FROM page JOIN marketplace_offer o ON o.id = page.id
             CROSS JOIN LATERAL marketplace_offer_devices(o.id) d {sort.order("page.key", "page.id")}""",
        params,
    )


def _way(wanted: Condition, reach: Reach, sort: Sort, after: Condition, most: int) -> tuple[str, list[Any]]:
    """The common table expressions that end with `page`, and their parameters."""
    columns, order, outer = f"{sort.key} AS key, o.id", sort.order(sort.key, "o.id"), sort.order("key", "id")
    classes, narrowed = reach.classes, reach.narrow(wanted)
    lookup = f"SELECT {columns} FROM {_TABLE} WHERE {where(narrowed)} AND {after.sql}"
    every = [*narrowed.params, *after.params]
    if reach.fitting <= FEW or "state" in wanted.named:
        return f"found AS MATERIALIZED ({lookup}), page AS (SELECT * FROM found {outer} LIMIT {most})", every
    if classes and (steps := 2 * (len(classes) + most)) * reach.offers <= WALK * reach.fitting:
        fits = f"SELECT {columns} FROM {_TABLE} WHERE o.class_id = c AND {where(wanted)} AND {after.sql}"
        walk = f"SELECT x.* FROM unnest(%s::int[]) c CROSS JOIN LATERAL ({fits} {{}} {order} LIMIT {{}}) x {outer}"
        sign = ">=" if sort.descending else "<="
        # A few of each class say how far the others need to be walked: up to the last key of a page of those.
        return (
            f"""first AS MATERIALIZED ({walk.format("", steps // len(classes))} LIMIT {most}),
                bound AS MATERIALIZED (SELECT coalesce(
                  (SELECT key FROM first {outer} LIMIT 1 OFFSET {most - 1}), '{sort.last}'::{sort.cast}) AS key),
                page AS ({walk.format(f"AND {sort.key} {sign} (SELECT key FROM bound)", most)} LIMIT {most})""",
            [classes, *wanted.params, *after.params] * 2,
        )
    head = f"SELECT * FROM {_TABLE} WHERE {_ON_SALE} AND {after.sql} {order} LIMIT {WALK}"
    return (
        f"""head AS MATERIALIZED (SELECT {columns} FROM ({head}) o WHERE {narrowed.sql} {order} LIMIT {most}),
            rest AS MATERIALIZED ({lookup} AND (SELECT count(*) FROM head) < {most}),
            page AS (SELECT * FROM (SELECT * FROM head WHERE (SELECT count(*) FROM head) = {most}
                     UNION ALL SELECT * FROM rest) x {outer} LIMIT {most})""",
        [*after.params, *every[: len(narrowed.params)], *every],
    )


def _explain(q: str, tree: Node) -> list[dict[str, Any]]:
    parts = top_level(tree)
    if len(parts) > MOST_EXPLAINED:
        raise Invalid("filter.too_many", f"at most {MOST_EXPLAINED} filters joined by and are explained")
    named, counts, params = condition(tree).named, [], []
    for i in range(len(parts)):
        for chosen in ([parts[i]], [part for part in parts if part is not parts[i]]):
            made = [condition(part) for part in chosen]
            fits = where(Condition(" AND ".join(one.sql for one in made) or "true", [], named))
            counts.append(f"(SELECT count(*) FROM (SELECT FROM {_TABLE} WHERE {fits} LIMIT {EXPLAINED}) x)")
            params += [value for one in made for value in one.params]
    found = iter(db.rows(f"SELECT {', '.join(counts)}", params)[0])
    return [{"filter": q[p.at : p.end], "position": p.at, "fits": next(found), "without": next(found)} for p in parts]


def _after(name: str, cursor: str | None) -> Condition:
    """Only what comes behind the cursor's row; a cursor belongs to the order that made it."""
    key = decode(cursor, 3)
    if key is None:
        return Condition("true")
    made_by, value, last = key
    if made_by != name:
        raise _bad_cursor("this cursor belongs to another sort order")
    sort, sign = SORTS[name], "<" if SORTS[name].descending else ">"
    try:
        exact = UUID(str(last)) if sort.cast == "uuid" else _number(str(value), sort.cast)
        return Condition(f"({sort.key}, o.id) {sign} (%s::{sort.cast}, %s::uuid)", [exact, UUID(str(last))])
    except ValueError as error:
        raise _bad_cursor("this cursor is not one of ours") from error


def _number(text: str, cast: str) -> int | float:
    if cast == "float8" and text.isascii() and not math.isnan(value := float(text)):
        return value
    if not (text.isascii() and text.isdecimal() and len(text) <= 18 + 20 * (cast == "numeric")):
        raise ValueError(text)
    return int(text)


def _bad_cursor(message: str) -> Invalid:
    return Invalid("request.cursor", message, errors=[{"loc": ["query", "cursor"], "msg": message}])
