"""Receipts to the chain: leaves become a batch, its Merkle root is anchored, no value moves."""

from uuid import UUID

from django.conf import settings
from django.db import transaction

from aitbc.chain import intents, merkle
from aitbc.chain.addresses import bytes32
from aitbc.chain.models import Intent
from aitbc.core import db
from aitbc.core.clock import database_now
from aitbc.core.ids import uuid7
from apps.trading.models import ReceiptLeaf, SettlementBatch
from apps.trading.services import journal


def push_leaf(*, job_id: UUID, leaf: bytes) -> None:
    """Queue a receipt's hash (32 bytes) in the caller's transaction; once per job."""
    ReceiptLeaf.objects.get_or_create(job=job_id, defaults={"leaf": leaf})


@transaction.atomic
def seal_batch(*, limit: int, older_than: int = 0) -> SettlementBatch | None:
    """Close a batch of up to `limit` receipts and ask for its anchor in the same transaction.

    None when nothing waits, or when fewer than `limit` wait and none is `older_than` seconds old.
    """
    batch_id = uuid7()
    taken = db.rows("SELECT leaf FROM receipts_take(%s::uuid, %s::int, %s::int)", (batch_id, limit, older_than))
    if not taken:
        return None
    root = "0x" + merkle.root([bytes(leaf) for (leaf,) in taken]).hex()
    batch = SettlementBatch.objects.create(id=batch_id, network=settings.CHAIN_NETWORK, root=root, receipts=len(taken))
    args = [bytes32(batch_id), root, str(len(taken)), journal.head()]
    intents.request_intent("settlement.anchor", f"anchor:{batch_id}", "anchor", args)
    return batch


def finish_batch(intent: Intent) -> None:
    """The anchor is final, or failed for good: then its receipts join a later batch."""
    batch = SettlementBatch.objects.select_for_update().get(pk=UUID(intent.args[0][2:34]))
    if intent.state == Intent.State.FINAL:
        batch.state = SettlementBatch.State.FINAL
        batch.tx_hash, batch.block, batch.gas_used = intent.tx_hash, intent.block_number, intent.gas_used
    else:
        batch.state = SettlementBatch.State.FAILED
        batch.leaves.update(batch=None, position=None)
    batch.finalized_at = database_now()
    batch.save()
