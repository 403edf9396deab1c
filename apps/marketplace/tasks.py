"""Celery shells of the marketplace services."""

from celery import shared_task

from aitbc.core.tasks import RETRY_UNAVAILABLE
from apps.gpu.services import reexecution
from apps.marketplace.services import orders
from apps.trading.services.escrow import call


@shared_task(name="marketplace.run_orders", **RETRY_UNAVAILABLE)
def run_orders() -> dict[str, int]:
    """Quotes expire, orders end, credits and bonds are paid."""
    return orders.run_due()


@shared_task(name="marketplace.collect", **RETRY_UNAVAILABLE)
def collect(limit: int = 1000) -> dict[str, int]:
    """What work that was done again decides, and what ended deals and disputes mean for scores."""
    return {**reexecution.judge(), "noted": int(call("reputation_collect", limit))}
