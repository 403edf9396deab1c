"""Corrections: a transfer is never changed, another one moves the amount back."""

from typing import Final
from uuid import UUID, uuid5

from django.db import transaction

from aitbc.core.errors import Conflict, NotFound
from aitbc.core.outbox import announce
from apps.trading.models import Transfer
from apps.trading.services import ledger

_NAMESPACE: Final = UUID("7d0a3a5e-9d4b-5a52-8a0e-4f0c3c1b6a11")
# Booked by state machines of their own, which have ways back; a reversal behind their back would break them.
MANAGED: Final = ("job.", "earning.", "withdrawal", "payout.", "stream.")


def reversal(transfer_id: UUID) -> ledger.Item:
    """The one item that reverses this transfer; its id follows from the transfer's, so it is applied once.

    Raises NotFound `ledger.transfer_unknown`, Conflict `ledger.not_reversible`.
    """
    found = Transfer.objects.filter(id=transfer_id).first()
    if found is None:
        raise NotFound("ledger.transfer_unknown", "the ledger has no transfer of this id")
    if found.credit_id is None or found.kind.startswith(MANAGED) or found.kind == "reversal":
        raise Conflict("ledger.not_reversible", f"a {found.state} {found.kind} is not corrected by a reversal")
    item, amount = uuid5(_NAMESPACE, str(found.id)), int(found.amount)
    return ledger.Item(item, "transfer", "reversal", found.credit_id, found.debit_id, amount, reference=found.id)


def reverse(transfer_id: UUID, *, reason: str) -> UUID:
    """Move the amount back and tell of it; repeatable. The reversal's id.

    Raises what `reversal` raises, and Conflict `payment.insufficient_funds` when the receiver has spent it.
    """
    item = reversal(transfer_id)
    with transaction.atomic():
        (code,) = ledger.apply([item])
        if code not in ("ok", "exists"):
            raise ledger.refusal(code, item)
        if code == "ok":
            announce("trading.transfer_reversed", str(transfer_id), {"reversal": str(item.id), "reason": reason})
    return item.id
