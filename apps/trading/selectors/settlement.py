"""Where receipts are anchored, and batches for readers."""

from collections import defaultdict
from dataclasses import dataclass
from uuid import UUID

from django.conf import settings

from aitbc.chain import merkle
from aitbc.core import db


@dataclass(frozen=True, slots=True)
class Anchor:
    """The leaf's path to the root that a final transaction fixed; hashes as 0x hex."""

    leaf: bytes
    root: str
    proof: list[str]
    tx_hash: str
    chain_id: int
    block: int


_FOUND = """
SELECT l.job, l.leaf, l.position, b.id, b.root, b.tx_hash, b.block FROM trading_receipt_leaf l
  JOIN trading_settlement_batch b ON b.id = l.batch_id AND b.state = 'final' WHERE l.job = ANY (%s::uuid[])
"""


def anchors(jobs: list[UUID]) -> dict[UUID, Anchor]:
    """The anchor of each job whose batch is final on the chain; the others are absent."""
    found = db.rows(_FOUND, (jobs,)) if jobs else []
    leaves = _leaves({row[3] for row in found})
    return {
        job: Anchor(
            leaf=bytes(leaf),
            root="0x" + bytes(root).hex(),
            proof=["0x" + step.hex() for step in merkle.proof(leaves[batch], position)],
            tx_hash="0x" + bytes(tx_hash).hex(),
            chain_id=settings.CHAIN_ID,
            block=block,
        )
        for job, leaf, position, batch, root, tx_hash, block in found
    }


def _leaves(batches: set[UUID]) -> dict[UUID, list[bytes]]:
    grouped: dict[UUID, list[bytes]] = defaultdict(list)
    for batch, leaf in db.rows(
        """SELECT batch_id, leaf FROM trading_receipt_leaf WHERE batch_id = ANY (%s::uuid[])
            ORDER BY batch_id, position""",
        (list(batches),),
    ):
        grouped[batch].append(bytes(leaf))
    return grouped
