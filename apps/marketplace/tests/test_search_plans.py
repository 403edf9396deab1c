"""Every filter and order is served by an index: the plan of the very statement that the search sends."""

from typing import Any

import psycopg
import pytest
from django.conf import settings

from aitbc.core.testing import cast
from aitbc.core.testing.cast import AIT
from apps.marketplace.selectors import offers as selectors
from apps.marketplace.selectors.filters import Filter
from apps.marketplace.tests.conftest import card
from apps.marketplace.tests.test_search import PLAIN, insert

COMMON = PLAIN | {"model": "NVIDIA RTX 4090", "memory_mb": 8192, "price": AIT}
RARE = PLAIN | {
    "model": "NVIDIA H200",
    "memory_mb": 144384,
    "price": AIT // 10,
    "region": "asia",
    "kinds": ["vision.ocr"],
    "verified": True,
    "device_kind": "cuda",
    "cuda": 12008,
    "tflops": 67.0,
    "dl_score": 900.0,
    "reliability": 0.99,
    "spot_price": AIT // 100,
}
FIRST = {"limit": 10}
EXPECTED = [
    (FIRST | {"sort": "price"}, "offer_price"),
    (FIRST | {"sort": "-price"}, "offer_price"),
    (FIRST | {"sort": "score"}, "offer_score"),
    (FIRST | {"sort": "price_per_tflops"}, "offer_tflops_price"),
    (FIRST | {"sort": "reliability"}, "offer_reliability"),
    (FIRST | {"sort": "memory"}, "offer_memory"),
    (FIRST | {"sort": "newest"}, "offer_age"),
    (FIRST | {"q": "model = rtx_4090", "sort": "price"}, "offer_class_price"),
    (FIRST | {"q": "memory_gb < 40", "sort": "score"}, "offer_class_score"),
    (FIRST | {"q": "memory_gb < 40", "sort": "price_per_tflops"}, "offer_class_tflops_price"),
    (FIRST | {"q": "memory_gb < 40", "sort": "reliability"}, "offer_class_reliability"),
    (FIRST | {"q": "memory_gb < 40", "sort": "newest"}, "offer_class_age"),
    ({"q": "price < 0.5"}, "offer_class_price"),
    ({"q": "region = asia"}, "offer_region"),
    ({"q": "cuda >= 12.6"}, "offer_cuda"),
    ({"q": "tflops > 60"}, "offer_speed"),
    ({"q": "dl_score > 800"}, "offer_dl_score"),
    ({"q": "reliability >= 0.9"}, "offer_sure"),
    ({"q": "spot < 0.5"}, "offer_spot"),
    ({"q": "kinds = vision.ocr"}, "offer_kinds"),
    ({"q": "region = asia or tflops > 60"}, "BitmapOr"),
]


def plan_of(connection: psycopg.Connection[Any], *, q: str = "", sort: str = "price", limit: int = 50) -> str:
    """The plan of the statement that `marketplace_find` runs for a first page."""
    wanted = Filter(q)
    where = selectors.on_sale(wanted, wanted.sql)
    connection.execute("SET jit = off; SET max_parallel_workers_per_gather = 0; SET random_page_cost = 1.1")
    way = connection.execute(
        "SELECT statement, classes FROM marketplace_way(%s, %s, %s, true, %s, NULL, NULL, %s, 20, 10000)",
        (where, wanted.of_class, wanted.values, sort, limit + 1),
    ).fetchone()
    assert way is not None
    statement = f"EXPLAIN {way[0]}".replace("($1)", "($1::text[])").replace("($2)", "($2::int[])")
    given = [wanted.values, way[1]][: 2 if "$2" in statement else 1 if "$1" in statement else 0]
    rows = psycopg.RawCursor(connection).execute(statement, given).fetchall()
    return "\n".join(line for (line,) in rows)


@pytest.mark.usefixtures("committed_db")
def test_every_filter_and_order_finds_its_index():
    """Three rare offers among 2,000 and some suspended ones; statistics as autovacuum makes them."""
    mike = cast.seller("mike", device=card())
    insert(mike.miner_id, [COMMON | {"state": "suspended"}] * 30 + [COMMON] * 2000 + [RARE] * 3)
    owner = psycopg.conninfo.make_conninfo(settings.DATABASE_OWNER_URL, dbname=settings.DATABASES["owner"]["NAME"])
    with psycopg.connect(owner, autocommit=True) as connection:
        connection.execute("ANALYZE marketplace_offer, marketplace_offer_class")

        used = {str(query): (index, plan_of(connection, **query)) for query, index in EXPECTED}

    assert {query: plan for query, (index, plan) in used.items() if f" {index} " not in plan} == {}
