"""Saved searches: offers that newly match are written down once, and their owner is told (sql/search.sql)."""

from uuid import UUID

import orjson
import structlog

from aitbc.core import db
from aitbc.core.errors import DomainError
from apps.marketplace.selectors.filters import Filter
from apps.marketplace.selectors.offers import on_sale
from apps.trading.services.escrow import call

log = structlog.get_logger(__name__)


def save(*, owner: UUID, name: str, q: str, alert: bool) -> str:
    """The search as JSON text. Invalid as a search is; Conflict "search.too_many" above 20."""
    Filter(q)
    return str(call("marketplace_search_save", owner, name, q, alert))


def match_changed(limit: int = 1000) -> int:
    """Try every search with an alert on the offers that changed since the last time -> how many it told of."""
    searches = {}
    for search, q in db.rows("SELECT id, q FROM marketplace_search WHERE alert ORDER BY id"):
        try:
            searches[search] = Filter(q)
        except DomainError as error:  # a field of then that is no more: its owner sees no matches, the others do
            log.warning("a saved search is not understood any more", search=search, code=error.code)
    wheres = [on_sale(wanted, wanted.sql) for wanted in searches.values()]
    values = orjson.dumps([wanted.values for wanted in searches.values()]).decode()
    return int(call("marketplace_match", list(searches), wheres, values, limit))
