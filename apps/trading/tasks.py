"""Celery shells of the trading services."""

from celery import shared_task

from aitbc.core import db
from aitbc.core.tasks import RETRY_UNAVAILABLE
from apps.trading.services import payouts, reserves, reviews, schedule, withdrawals


@shared_task(name="trading.mature", **RETRY_UNAVAILABLE)
def mature(limit: int = 1000) -> int:
    """Earnings past their dispute window become available."""
    count: int = db.value("SELECT payments_mature(%s)", (limit,))
    return count


@shared_task(name="trading.settle", **RETRY_UNAVAILABLE)
def settle() -> dict[str, int]:
    """Close the batches of receipts and payouts that are due, and send what has waited long enough."""
    return {
        "receipts": schedule.seal_due_batches(),
        "payouts": schedule.seal_due_payouts(),
        "withdrawals": withdrawals.send_due(),
        "claims": payouts.sweep_claims(),
        "lapsed": reviews.lapse_due(),
    }


@shared_task(name="trading.settle_reserves", **RETRY_UNAVAILABLE)
def settle_reserves() -> str:
    """Compare the ledger with the chain; the difference in smallest units."""
    return str(reserves.check_reserves().difference)


@shared_task(name="trading.settle_liabilities", **RETRY_UNAVAILABLE)
def settle_liabilities() -> str:
    """Prove what is owed to users; the root of the tree."""
    return str(reserves.check_reserves(prove=True).root)
