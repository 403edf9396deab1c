"""Ledger against chain, at one final block and from one database snapshot (protocols 5)."""

from dataclasses import dataclass

import structlog
from django.conf import settings
from django.db import connection, transaction

from aitbc.chain import reads
from aitbc.chain.models import FinalEvent, NetworkStatus
from aitbc.core import db
from aitbc.core.errors import Unavailable
from aitbc.core.outbox import announce
from apps.trading.models import DepositAddress, ReserveCheck

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Snapshot:
    block: int
    block_hash: str
    liabilities: int
    pending: int
    addresses: list[str]


def check_reserves() -> ReserveCheck:
    """Compare and store; a difference is announced as `trading.reserves_differ` and logged critical.

    Unavailable while the chain cannot be asked or nothing is final yet: unknown is not equal.
    """
    db.outside_transaction()
    snapshot = _snapshot()
    contract, unswept = reads.balances(block=snapshot.block, addresses=snapshot.addresses)
    difference = contract + unswept - snapshot.liabilities - snapshot.pending
    with transaction.atomic():
        check = ReserveCheck.objects.create(
            network=settings.CHAIN_NETWORK, asset="AIT", difference=difference,
            block_number=snapshot.block, block_hash=snapshot.block_hash, contract=contract, unswept=unswept,
            liabilities=snapshot.liabilities, pending=snapshot.pending,
        )  # fmt: skip
        ReserveCheck.objects.filter(network=check.network, difference=0, id__lt=check.pk - 1000).delete()
        if difference:
            announce("trading.reserves_differ", f"reserves:{check.network}", {"difference": str(difference)})
            log.critical(
                "reserves differ", network=check.network, block=check.block_number, difference=difference
            )
    return check


def _snapshot() -> Snapshot:
    with transaction.atomic():
        connection.cursor().execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        status = NetworkStatus.objects.filter(network=settings.CHAIN_NETWORK).first()
        if status is None or status.final_hash is None:
            raise Unavailable("reserves.unchecked", "no block of this network is final yet")
        addresses = [
            str(address)
            for address in DepositAddress.objects.filter(network=status.network).values_list(
                "address", flat=True
            )
        ]
        return Snapshot(
            block=status.final_height,
            block_hash=str(status.final_hash),
            liabilities=_liabilities(status.network),
            pending=_pending(status, {*addresses, reads.settlement_address()}),
            addresses=addresses,
        )


def _liabilities(network: str) -> int:
    """All that the ledger owes against this chain: its mirror account, which runs negative."""
    return -int(
        db.value(
            """SELECT coalesce(sum(posted), 0) FROM trading_account
                WHERE kind = 'external' AND asset_id = 'AIT' AND chain = %s""",
            (network,),
        )
    )


def _pending(status: NetworkStatus, ours: set[str]) -> int:
    """Net inflow of final transfers that are not consumed yet."""
    waiting = FinalEvent.objects.filter(
        network=status.network, contract="AIT", name="Transfer", id__gt=status.event_cursor
    )
    moved = [(e.args["from"] in ours, e.args["to"] in ours, int(e.args["value"])) for e in waiting]
    return sum(amount * (into - out) for out, into, amount in moved)
