"""Ledger against chain, at one final block and from one database snapshot (protocols 5)."""

from typing import Any
from uuid import UUID

import structlog
from django.conf import settings
from django.db import connection, transaction

from aitbc.chain import intents, reads
from aitbc.chain.addresses import bytes32
from aitbc.core import db
from aitbc.core.errors import Unavailable
from aitbc.core.outbox import announce
from apps.trading.models import ReserveCheck
from apps.trading.services import journal

log = structlog.get_logger(__name__)
_FROZEN = "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ; SET LOCAL statement_timeout = '10min'"


def check_reserves(*, prove: bool = False) -> ReserveCheck:
    """Compare and store; a difference is announced as `trading.reserves_differ` and logged critical. `prove`
    also builds the tree of what is owed to each user, of the same snapshot, and anchors its root.

    Unavailable while the chain cannot be asked or nothing is final yet: unknown is not equal.
    """
    db.outside_transaction()
    facts, addresses = _snapshot(prove=prove)
    contract, unswept = reads.balances(block=facts["block_number"], addresses=addresses)
    difference = contract + unswept - int(facts["liabilities"] + facts["pending"])
    with transaction.atomic():
        check = ReserveCheck.objects.create(
            network=settings.CHAIN_NETWORK, asset="AIT", contract=contract, unswept=unswept,
            difference=difference, **facts,
        )  # fmt: skip
        plain = ReserveCheck.objects.filter(network=check.network, difference=0, proof=None)
        plain.filter(id__lt=check.pk - 1000).delete()
        if check.proof:
            _anchor(check, check.proof)
        if difference:
            announce("trading.reserves_differ", f"reserves:{check.network}", {"difference": str(difference)})
            log.critical("reserves differ", network=check.network, block=check.block_number, by=difference)
    return check


def _snapshot(*, prove: bool) -> tuple[dict[str, Any], list[str]]:
    """(fields of a check, deposit addresses); all statements see the same state of the database."""
    with transaction.atomic():
        connection.cursor().execute(_FROZEN)
        found = db.row("SELECT * FROM reserve_snapshot(%s)", (settings.CHAIN_NETWORK,))
        if found is None:
            raise Unavailable("reserves.unchecked", "no block of this network is final yet")
        facts = dict(zip(("block_number", "block_hash", "liabilities", "pending"), found[:4], strict=True))
        tree = db.rows("SELECT * FROM liabilities_prove(%s)", (settings.CHAIN_NETWORK,)) if prove else []
        for made in tree:  # none before anybody has an account
            facts |= dict(zip(("proof", "root", "owed", "users"), made, strict=True))
        return facts, found[4]


def _anchor(check: ReserveCheck, proof: UUID) -> None:
    """Fix the root on the chain beside the ledger's head of that time."""
    args = [bytes32(proof), str(check.root), str(check.users), journal.head()]
    intents.request_intent("settlement.liabilities", f"liabilities:{proof}", "anchor", args)
