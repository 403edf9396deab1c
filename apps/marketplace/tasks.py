"""Celery shells of the marketplace services."""

from celery import shared_task

from aitbc.core.tasks import RETRY_UNAVAILABLE
from apps.marketplace.services import orders


@shared_task(name="marketplace.run_orders", **RETRY_UNAVAILABLE)
def run_orders() -> dict[str, int]:
    """Quotes expire, orders end, credits and bonds are paid."""
    return orders.run_due()
