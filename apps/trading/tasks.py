"""Celery shells of the trading services."""

import datetime as dt

from celery import shared_task

from aitbc.core import db
from aitbc.core.clock import database_now
from aitbc.core.tasks import RETRY_UNAVAILABLE
from apps.trading.services import audit, journal, payouts, reserves, reviews, schedule, streams, withdrawals


@shared_task(name="trading.mature", **RETRY_UNAVAILABLE)
def mature(limit: int = 1000) -> int:
    """Earnings past their dispute window become available."""
    return int(db.value("SELECT payments_mature(%s)", (limit,)))


@shared_task(name="trading.run_streams", **RETRY_UNAVAILABLE)
def run_streams() -> dict[str, int]:
    """Streams near their end are topped up or announced, and those at their end are ended."""
    return streams.run_due()


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


@shared_task(name="trading.expire_holds", **RETRY_UNAVAILABLE)
def expire_holds(limit: int = 1000) -> int:
    """Release holds whose time-out is over."""
    return int(db.value("SELECT ledger_expire(%s)", (limit,)))


@shared_task(name="trading.checkpoint", **RETRY_UNAVAILABLE)
def checkpoint() -> int | None:
    """Record all balances, so that old ones are read and new ones audited from here."""
    return journal.checkpoint()


@shared_task(name="trading.audit", **RETRY_UNAVAILABLE)
def audit_recent(hours: int = 1) -> int:
    """Audit what is newer than the checkpoint of an hour ago; a finding lands among the dead letters."""
    if findings := audit.audit(since=database_now() - dt.timedelta(hours=hours)):
        raise audit.Unsound(findings)
    return len(audit.RULES)


@shared_task(name="trading.settle_liabilities", **RETRY_UNAVAILABLE)
def settle_liabilities() -> str:
    """Prove what is owed to users; the root of the tree."""
    return str(reserves.check_reserves(prove=True).root)
