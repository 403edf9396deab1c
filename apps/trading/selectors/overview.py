"""Money in figures for the console's dashboard, in smallest units of one asset."""

from dataclasses import dataclass

from aitbc.core import db
from apps.trading.models import ReceiptLeaf, ReserveCheck, SettlementBatch


@dataclass(frozen=True, slots=True)
class Money:
    """`escrow` is held for running jobs and payouts, `owed` is all that the platform owes its owners."""

    escrow: int
    maturing: int
    fees: int
    owed: int


def money(asset: str) -> Money:
    found = db.rows(
        """SELECT coalesce(sum(held), 0), coalesce(sum(posted) FILTER (WHERE kind = 'maturing'), 0),
                  coalesce(sum(posted) FILTER (WHERE kind = 'fees'), 0),
                  coalesce(sum(posted) FILTER (
                    WHERE owner_id IS NOT NULL OR kind IN ('claimable', 'unattributed')), 0)
             FROM trading_account WHERE asset_id = %s""",
        (asset,),
    )[0]
    return Money(*(int(value) for value in found))


def last_reserve_check(network: str, asset: str) -> ReserveCheck | None:
    """The latest comparison of ledger and chain; None before the first."""
    return ReserveCheck.objects.filter(network=network, asset=asset).order_by("-id").first()


def last_settlement() -> SettlementBatch | None:
    return SettlementBatch.objects.order_by("-id").first()


def unbatched_receipts() -> int:
    return ReceiptLeaf.objects.filter(batch__isnull=True).count()
