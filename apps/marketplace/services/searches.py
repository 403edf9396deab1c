"""Saved searches: offers that newly match are written down once, and their owner is told (sql/search.sql)."""

from uuid import UUID

import structlog
from django.db import transaction

from aitbc.core import db
from aitbc.core.errors import DomainError
from apps.marketplace.selectors.filters import condition
from apps.marketplace.selectors.offers import where
from apps.marketplace.selectors.syntax import parse
from apps.trading.services.escrow import call

log = structlog.get_logger(__name__)


def save(*, owner: UUID, name: str, q: str, alert: bool) -> str:
    """The search as JSON text. Invalid as a search is; Conflict "search.too_many" above 20."""
    condition(parse(q))
    return str(call("marketplace_search_save", owner, name, q, alert))


@transaction.atomic
def match_changed(limit: int = 1000) -> int:
    """Try every search with an alert on the offers that changed since the last time -> how many it told of.

    One at a time: the rows taken are gone with the transaction that told of them, so none is lost or told twice.
    """
    taken = db.rows(
        """WITH oldest AS (SELECT offer_id FROM marketplace_offer_change ORDER BY at LIMIT %s FOR UPDATE SKIP LOCKED)
           DELETE FROM marketplace_offer_change c USING oldest x WHERE c.offer_id = x.offer_id
           RETURNING c.offer_id, c.before::text""",
        (limit,),
    )
    searches = db.rows("SELECT id, q FROM marketplace_search WHERE alert ORDER BY id") if taken else []
    offers, before = [offer for offer, _ in taken], [was for _, was in taken if was]
    return sum(_match(search, q, offers, before) for search, q in searches)


def _match(search: UUID, q: str, offers: list[UUID], before: list[str]) -> int:
    try:
        wanted = condition(parse(q))
    except DomainError as error:  # a field of then that is no more: its owner sees no matches, the others do
        log.warning("a saved search is not understood any more", search=search, code=error.code)
        return 0
    fits = where(wanted)
    new = db.value(
        f"""SELECT array_agg(o.id) FROM marketplace_offer o WHERE o.id = ANY(%s::uuid[]) AND {fits}
             AND o.id NOT IN (SELECT o.id FROM unnest(%s::jsonb[]) was,
                              LATERAL jsonb_populate_record(NULL::marketplace_offer, was) o WHERE {fits})""",
        (offers, *wanted.params, before, *wanted.params),
    )
    return int(db.value("SELECT marketplace_search_tell(%s, %s::uuid[])", (search, new))) if new else 0
