"""Celery shells of the marketplace's services."""

from celery import shared_task

from aitbc.core import db
from aitbc.core.tasks import RETRY_UNAVAILABLE
from apps.marketplace.services import searches


@shared_task(name="marketplace.sweep", **RETRY_UNAVAILABLE)
def sweep(limit: int = 1000) -> dict[str, int]:
    """Withdraw offers whose time is over (no search shows them any more), and tell of offers that newly match."""
    return {"expired": db.value("SELECT marketplace_expire(%s)", (limit,)), "told": searches.match_changed(limit)}
