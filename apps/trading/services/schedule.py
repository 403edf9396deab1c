"""When batches are due, by the governed parameters."""

from typing import Final

from django.conf import settings
from django.db import transaction

from aitbc.accounts import parameters
from aitbc.core import db
from apps.trading.services import payouts, settlement

AIT: Final = 10**18
MOST_BATCHES: Final = 20


def seal_due_batches() -> int:
    """Seal full batches, and a smaller one that is old enough; how many receipts they hold."""
    receipts = 0
    for _ in range(MOST_BATCHES):
        batch = settlement.seal_batch(
            limit=parameters.get("settlement_batch"), older_than=parameters.get("settlement_seconds")
        )
        if batch is None:
            break
        receipts += batch.receipts
    return receipts


def seal_due_payouts() -> int:
    """Seal a payout batch when the last one is old enough; how many providers it pays."""
    with transaction.atomic():
        db.rows("SELECT pg_advisory_xact_lock(hashtextextended('trading.payouts', 0))")
        if not _payouts_due():
            return 0
        batch = payouts.seal_payouts(
            minimum=parameters.get("payout_minimum_milli") * AIT // 1000,
            most=parameters.get("payout_batch_ait") * AIT,
            alone=parameters.get("payout_approval_ait") * AIT,
            wait_seconds=parameters.get("address_wait_seconds"),
        )
    return batch.count if batch else 0


def _payouts_due() -> bool:
    due: bool = db.value(
        """SELECT coalesce(max(created_at) <= clock_timestamp() - %s * interval '1 second', true)
             FROM trading_payoutbatch WHERE network = %s""",
        (parameters.get("payout_seconds"), settings.CHAIN_NETWORK),
    )
    return due
