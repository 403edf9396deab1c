"""Celery shells of the trading services."""

from celery import shared_task

from aitbc.core import db
from aitbc.core.tasks import RETRY_UNAVAILABLE


@shared_task(name="trading.mature", **RETRY_UNAVAILABLE)
def mature(limit: int = 1000) -> int:
    """Earnings past their dispute window become available."""
    count: int = db.value("SELECT payments_mature(%s)", (limit,))
    return count
