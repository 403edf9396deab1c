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

_TAKE = """
UPDATE trading_receipt_leaf l SET batch_id = %s, position = o.position - 1
  FROM (SELECT id, row_number() OVER (ORDER BY id) AS position FROM (
          SELECT id FROM trading_receipt_leaf WHERE batch_id IS NULL ORDER BY id LIMIT %s
          FOR UPDATE SKIP LOCKED) t) o
 WHERE l.id = o.id RETURNING o.position, l.leaf"""


def push_leaf(*, job_id: UUID, leaf: bytes) -> None:
    """Queue a receipt's hash (32 bytes) in the caller's transaction; once per job."""
    ReceiptLeaf.objects.get_or_create(job=job_id, defaults={"leaf": leaf})


@transaction.atomic
def seal_batch(*, limit: int, older_than: int = 0) -> SettlementBatch | None:
    """Close a batch of up to `limit` receipts and ask for its anchor in the same transaction.

    None when nothing waits, or when fewer than `limit` wait and none is `older_than` seconds old.
    """
    waiting, age = _waiting()
    if waiting == 0 or (waiting < limit and age < older_than):
        return None
    batch_id = uuid7()
    taken = sorted(db.rows(_TAKE, (batch_id, limit)))
    if not taken:  # another sealer has them
        return None
    root = "0x" + merkle.root([bytes(leaf) for _, leaf in taken]).hex()
    batch = SettlementBatch.objects.create(
        id=batch_id, network=settings.CHAIN_NETWORK, root=root, receipts=len(taken)
    )
    intents.request_intent(
        kind="settlement.anchor",
        business_key=f"anchor:{batch_id}",
        contract="Settlement",
        function="anchor",
        args=[bytes32(batch_id), root, str(len(taken)), journal.head()],
    )
    return batch


def _waiting() -> tuple[int, int]:
    """(receipts that wait, seconds that the oldest has waited)"""
    found = db.row(
        """SELECT count(*), coalesce(extract(epoch FROM clock_timestamp() - min(created_at))::bigint, 0)
             FROM trading_receipt_leaf WHERE batch_id IS NULL"""
    )
    return (int(found[0]), int(found[1])) if found else (0, 0)


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
