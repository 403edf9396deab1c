"""Celery shells of the marketplace's services."""

from celery import shared_task

from aitbc.core import db
from aitbc.core.tasks import RETRY_UNAVAILABLE
from apps.marketplace.services import searches


@shared_task(name="marketplace.expire_offers", **RETRY_UNAVAILABLE)
def expire_offers(limit: int = 1000) -> int:
    """Offers whose time is over are withdrawn; a search has not shown them since."""
    return int(db.value("SELECT marketplace_expire(%s)", (limit,)))


@shared_task(name="marketplace.match_searches", **RETRY_UNAVAILABLE)
def match_searches() -> int:
    """Tell the owners of saved searches of offers that newly match."""
    return searches.match_changed()
