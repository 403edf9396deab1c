"""Every filter and order is served by an index: the plan of the very statement that the search sends."""

from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from django.conf import settings
from django.test import Client

from aitbc.core import db
from aitbc.core.testing import cast
from apps.marketplace.tests.conftest import OFFERS, card, read
from apps.marketplace.tests.test_search import KINDS, MODELS, insert

COMMON = {"model": MODELS[1], "memory_gb": 8, "price": "1", "region": "eu", "kinds": {KINDS[0]}}
RARE = {"model": MODELS[0], "memory_gb": 141, "price": "0.1", "region": "asia", "kinds": {KINDS[2]}}
EXPECTED = [
    ({"sort": "price", "limit": 10}, "offer_by_price"),
    ({"sort": "-price", "limit": 10}, "offer_by_price"),
    ({"max_price": "0.5", "limit": 10}, "offer_by_price"),
    ({"sort": "memory", "limit": 10}, "offer_by_memory"),
    ({"sort": "newest", "limit": 10, "state": "suspended"}, "offer_by_age"),
    ({"sort": "newest", "min_vram_gb": 80}, "offer_by_memory"),
    ({"sort": "newest", "max_price": "0.5"}, "offer_by_price"),
    ({"sort": "newest", "model": "nvidia h200"}, "offer_by_model"),
    ({"sort": "newest", "region": "asia"}, "offer_by_region"),
    ({"sort": "newest", "verified": True}, "offer_by_verified"),
    ({"sort": "newest", "kind": "vision.ocr"}, "offer_by_kind"),
]


@pytest.fixture
def plan_of(monkeypatch: pytest.MonkeyPatch) -> Callable[[dict[str, Any]], str]:
    def plan(query: dict[str, Any]) -> str:
        sent: list[tuple[Any, ...]] = []
        real = db.rows
        with monkeypatch.context() as patched:
            patched.setattr(db, "rows", lambda *a, **kw: sent.append(a) or real(*a, **kw))
            read(Client().get(OFFERS, query))
        sql, params = next(call for call in sent if "marketplace_offer" in call[0])
        return "\n".join(line for (line,) in db.rows(f"EXPLAIN {sql}", params))

    return plan


@pytest.mark.usefixtures("committed_db")
def test_every_filter_and_order_finds_its_index(plan_of):
    """Three rare offers among 3,000 and some suspended ones; statistics as autovacuum makes them."""
    mike = cast.seller("mike", device=card())
    for state, count in (("suspended", 30), ("listed", 3000)):
        insert(mike.miner_id, [COMMON | {"state": state, "verified": False}] * count)
    insert(mike.miner_id, [RARE | {"state": "listed", "verified": True}] * 3)
    owner = psycopg.conninfo.make_conninfo(settings.DATABASE_OWNER_URL, dbname=settings.DATABASES["owner"]["NAME"])
    with psycopg.connect(owner, autocommit=True) as connection:
        connection.execute("ANALYZE marketplace_offer")

    used = {str(query): (index, plan_of(query)) for query, index in EXPECTED}

    assert {query: plan for query, (index, plan) in used.items() if f" {index} " not in plan} == {}
