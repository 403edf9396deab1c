"""Withdrawals: hold -> intent -> final -> posted; one rail, sent by the operator (protocols 2).

The ledger follows the chain's own events: the hold is posted when the contract's Withdrawn is final, and
released only when the chain worker has shown that its transaction can never be mined.
"""

from typing import Final
from uuid import UUID

import structlog
from django.conf import settings
from django.db import transaction
from django.db.models.functions import Now

from aitbc.chain import intents, signing
from aitbc.chain.addresses import bytes32
from aitbc.chain.models import FinalEvent, Intent
from aitbc.core import db, money
from aitbc.core.errors import Conflict, Invalid, NotFound, Unavailable
from aitbc.core.ids import uuid7
from apps.trading.models import Withdrawal
from apps.trading.services import ledger

log = structlog.get_logger(__name__)
AIT: Final = 10**18
State = Withdrawal.State


@transaction.atomic
def withdraw(*, user: UUID, address: str, amount: int) -> Withdrawal:
    """Hold `amount` (units of 10**-18 AIT) and send it to `address`, at once or after the address' wait;
    above the threshold of a day only once a second person has approved it.

    Conflict "payment.insufficient_funds" or "withdrawal.limit", Unavailable "chain.halted".
    """
    item = uuid7()
    code, detail = db.rows(
        "SELECT code, detail FROM withdrawal_open(%s::uuid, %s::uuid, %s, %s, %s::numeric)",
        (item, user, settings.CHAIN_NETWORK, recipient(address), amount),
    )[0]
    if code == "halted":
        raise Unavailable("chain.halted", f"withdrawals on {settings.CHAIN_NETWORK} are stopped: {detail}")
    if code in ("you", "this address"):
        left = money.show(int(detail), 18)
        raise Conflict("withdrawal.limit", f"{left} AIT are left for {code} within 24 hours", available=left)
    if code != "ok":
        raise ledger.refusal(code, ledger.Item(id=item, action="hold", kind="withdrawal.hold"))
    made = Withdrawal.objects.get(pk=item)
    return forward(made) if made.state == State.WAITING else made


def forward(item: Withdrawal) -> Withdrawal:
    """Send one that awaits nobody's word, or let it wait for its address."""
    item.state = State.WAITING
    item.save()
    if item.not_before <= db.value("SELECT clock_timestamp()"):
        _send(item)
    return item


def recipient(address: str) -> str:
    """Checksummed; Invalid "withdrawal.address" for one from which nobody could move what is sent there."""
    to = signing.checksum_address(signing.parse_address(address))
    if int(to, 16) == 0 or to in (intents.address_of("Settlement"), intents.address_of("AIT")):
        raise Invalid(
            "withdrawal.address",
            "nobody could move what is sent there",
            errors=[{"loc": ["body", "address"], "msg": "the zero address or a contract of this platform"}],
        )
    return to


def _send(item: Withdrawal) -> None:
    args = [bytes32(item.pk), item.address, str(item.amount), item.approval]
    intents.request_intent("settlement.withdrawal", f"withdrawal:{item.pk}", "withdraw", args)
    item.state = State.SENDING
    item.save(update_fields=["state"])


def send_due(limit: int = 100) -> int:
    """Send those whose address has waited long enough; how many."""
    with transaction.atomic():
        due = Withdrawal.objects.select_for_update(skip_locked=True).filter(
            state=State.WAITING, network=settings.CHAIN_NETWORK, not_before__lte=Now()
        )[:limit]
        for item in due:
            _send(item)
        return len(due)


@transaction.atomic
def cancel(*, user: UUID, withdrawal: UUID) -> Withdrawal:
    """Only while it waits, or is in review: what was asked of the chain cannot be taken back."""
    item = Withdrawal.objects.select_for_update().filter(pk=withdrawal, user_id=user).first()
    if item is None:
        raise NotFound("withdrawal.unknown", "you have no such withdrawal")
    if item.state not in (State.WAITING, State.REVIEW):
        raise Conflict("withdrawal.sent", f"this withdrawal is {item.state}")
    db.rows("SELECT withdrawal_release(%s::uuid, 'canceled')", (withdrawal,))
    item.refresh_from_db()
    return item


def receive_withdrawn(event: FinalEvent) -> None:
    """A final Withdrawn: the tokens are gone, and with them what we owed."""
    item, to, amount = UUID(event.args["intentId"][2:34]), event.args["to"], int(event.args["amount"])
    code = db.value(
        "SELECT withdrawal_withdrawn(%s::uuid, %s, %s, %s::numeric, %s, %s::bigint, %s::timestamptz)",
        (item, event.network, to, amount, event.tx_hash, event.block_number, event.block_time),
    )
    if code == "unknown":  # the ledger owes no less for it, so the comparison of reserves raises the alarm
        log.critical("nobody asked for this withdrawal", tx_hash=event.tx_hash, args=event.args)
    if code == "differs":
        raise Conflict("withdrawal.differs", f"the chain paid withdrawal {item} otherwise than asked")


def finish_withdrawal(intent: Intent) -> None:
    """The intent's end: success is posted by the event; a failure for good releases the hold."""
    sent = Withdrawal.objects.select_for_update().filter(pk=UUID(intent.args[0][2:34]), state=State.SENDING)
    if intent.state == Intent.State.FAILED and sent.exists():
        db.rows("SELECT withdrawal_release(%s::uuid, 'failed')", (UUID(intent.args[0][2:34]),))
