"""Receipts as the platform shows them to anybody: anchored where they are, without the parties' salt."""

from typing import Any
from uuid import UUID

from apps.gpu import receipts
from apps.gpu.models import Receipt
from apps.trading.selectors.settlement import Anchor, anchors


def with_anchor(receipt: Receipt) -> dict[str, Any]:
    """The signed document and, once its batch is final, the signed anchor; None until then."""
    found = anchor_of(receipt.pk)
    document: dict[str, Any] = receipt.document
    return document | {"anchor": _signed(found) if found else None}


def anchor_of(job: UUID) -> Anchor | None:
    return anchors([job]).get(job)


def _signed(found: Anchor) -> dict[str, Any]:
    return receipts.sign_anchor(
        leaf=found.leaf,
        root=found.root,
        proof=found.proof,
        tx_hash=found.tx_hash,
        chain_id=found.chain_id,
        block=found.block,
    )
