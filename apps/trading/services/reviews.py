"""The second person: what leaves above a threshold waits for somebody else's word (protocols 9).

Who approves is an operator who takes no part in it. He gives his password again and the passphrase of the
approver's key, and names the hash that he has looked at; the key signs exactly that, and the contract
refuses the operator without it.
"""

from datetime import datetime
from typing import Any, Final

from django.conf import settings
from django.db import transaction

from aitbc.accounts.models import Role, User
from aitbc.chain import approvals, intents, keystore, signing
from aitbc.chain.addresses import bytes32
from aitbc.core import db
from aitbc.core.errors import Conflict, Forbidden
from apps.trading.models import PayoutBatch, Withdrawal
from apps.trading.services import payouts, withdrawals

REVIEW: Final = "review"


def payload(item: Withdrawal | PayoutBatch) -> str:
    """0x hex of the 32 bytes that the approver signs and the contract checks."""
    values: dict[str, Any]
    if isinstance(item, Withdrawal):
        struct, values = approvals.WITHDRAWAL, {"intentId": bytes32(item.pk)}
        values |= {"to": item.address, "amount": item.amount}
    else:
        struct, values = approvals.PAYOUT, {"batchId": bytes32(item.pk), "root": item.root}
        values |= {"total": item.total, "count": item.count}
    domain = approvals.settlement_domain(settings.CHAIN_ID, intents.address_of("Settlement"))
    return "0x" + signing.digest(domain, struct, values).hex()


def approve(
    *, item: Withdrawal | PayoutBatch, by: User, seen: str, password: str, passphrase: str
) -> Withdrawal | PayoutBatch:
    """Sign what `by` has `seen` (the payload's hash) and let it leave, once and for all.

    Forbidden "approval.password" or ".role", Unavailable "keystore.password", Conflict "approval.own",
    ".differs", ".late" or ".state".
    """
    if by.role != Role.OPERATOR or not by.is_active:
        raise Forbidden("approval.role", "only operators approve")
    if not by.check_password(password):
        raise Forbidden("approval.password", "this is not your password")
    signer = keystore.load(keystore.APPROVER, passphrase=passphrase)
    with transaction.atomic():
        found = type(item).objects.select_for_update().get(pk=item.pk)
        now = db.value("SELECT clock_timestamp()")
        _refuse(found, by, seen, now)
        found.approved_by, found.approved_at = by, now
        found.approval = signer.sign(bytes.fromhex(seen[2:]))
        if isinstance(found, Withdrawal):
            withdrawals.forward(found)
        else:
            payouts.promise(found)
    return found


def _refuse(item: Withdrawal | PayoutBatch, by: User, seen: str, now: datetime) -> None:
    if item.state != REVIEW or item.review_until is None:
        raise Conflict("approval.state", f"it is {item.state}")
    if now > item.review_until:
        raise Conflict("approval.late", f"approval was possible until {item.review_until:%d %b %H:%M} UTC")
    if db.value("SELECT review_is_of(%s::uuid, %s::uuid)", (item.pk, by.pk)):
        raise Conflict("approval.own", "you asked for it, or get something of it: another person approves it")
    if seen != payload(item):
        raise Conflict("approval.differs", "this is not the hash of what would be sent")


def lapse_due() -> int:
    """Release what nobody approved in time; how many."""
    return int(db.value("SELECT reviews_lapse(100)"))
