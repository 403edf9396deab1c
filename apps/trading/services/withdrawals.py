"""Withdrawals: hold -> intent -> final -> posted; one rail, sent by the operator (protocols 2).

The ledger follows the chain's own events: the hold is posted when the contract's Withdrawn is final, and
released only when the chain worker has shown that its transaction can never be mined.
"""

from datetime import datetime, timedelta
from typing import Final
from uuid import UUID, uuid5

import structlog
from django.conf import settings
from django.db import transaction
from django.db.models import Sum
from django.db.models.functions import Now
from django.utils import timezone

from aitbc.accounts import parameters
from aitbc.chain import intents, signing
from aitbc.chain.addresses import bytes32
from aitbc.chain.models import FinalEvent, Intent, NetworkStatus
from aitbc.core import db, money
from aitbc.core.errors import Conflict, Invalid, NotFound, Unavailable
from aitbc.core.ids import uuid7
from apps.trading.models import Withdrawal
from apps.trading.models.reviews import REVIEW_TIME
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
    to = recipient(address)
    db.rows("SELECT pg_advisory_xact_lock(hashtextextended('trading.withdrawals', 0))")
    _refuse_while_halted()
    now = db.value("SELECT clock_timestamp()")
    alone = _moved_in_a_day(user, to, amount, now) <= parameters.get("withdrawal_approval_ait") * AIT
    item = Withdrawal(
        id=uuid7(),
        user_id=user,
        network=settings.CHAIN_NETWORK,
        address=to,
        amount=amount,
        state=State.WAITING if alone else State.REVIEW,
        review_until=None if alone else now + REVIEW_TIME,
        created_at=now,
        not_before=_known_since(user, to, now) + timedelta(seconds=parameters.get("address_wait_seconds")),
    )
    wallet = ledger.account_id(owner=user, kind="available")
    hold = ledger.Item(
        id=item.pk, action="hold", kind="withdrawal.hold", debit=wallet, amount=amount, reference=item.pk
    )
    ledger.apply_all([hold])
    item.save(force_insert=True)
    if alone:
        forward(item, now)
    return item


def forward(item: Withdrawal, now: datetime) -> None:
    """Send one that awaits nobody's word, or let it wait for its address."""
    item.state = State.WAITING
    item.save()
    if item.not_before <= now:
        _send(item)


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


def _refuse_while_halted() -> None:
    status = NetworkStatus.objects.filter(network=settings.CHAIN_NETWORK).first()
    if status is not None and status.halted:
        raise Unavailable("chain.halted", f"withdrawals on {status.network} are stopped: {status.halted}")


def _moved_in_a_day(user: UUID, to: str, amount: int, now: datetime) -> int:
    """What left, or will, within 24 hours, `amount` included: the larger of the sum by user, and that by
    address whoever sends there (protocols 9)."""
    day = Withdrawal.objects.filter(created_at__gt=now - timedelta(days=1))
    counted = day.exclude(state__in=(State.FAILED, State.CANCELED, State.LAPSED))
    limit, most = parameters.get("withdrawal_daily_ait") * AIT, amount
    for who, found in (("you", counted.filter(user_id=user)), ("this address", counted.filter(address=to))):
        moved = int(found.aggregate(total=Sum("amount"))["total"] or 0)
        if moved + amount > limit:
            left = money.show(max(limit - moved, 0), 18)
            raise Conflict(
                "withdrawal.limit", f"{left} AIT are left for {who} within 24 hours", available=left
            )
        most = max(most, moved + amount)
    return most


def _known_since(user: UUID, to: str, now: datetime) -> datetime:
    earlier = Withdrawal.objects.filter(user_id=user, address=to).order_by("created_at").first()
    return earlier.created_at if earlier else now


def _send(item: Withdrawal) -> None:
    intents.request_intent(
        kind="settlement.withdrawal",
        business_key=f"withdrawal:{item.pk}",
        contract="Settlement",
        function="withdraw",
        args=[bytes32(item.pk), item.address, str(item.amount), item.approval],
    )
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
    release(item, State.CANCELED)
    return item


def receive_withdrawn(event: FinalEvent) -> None:
    """A final Withdrawn: the tokens are gone, and with them what we owed."""
    item = Withdrawal.objects.select_for_update().filter(pk=UUID(event.args["intentId"][2:34])).first()
    if item is None:  # the ledger owes no less for it, so the comparison of reserves raises the alarm
        log.critical("nobody asked for this withdrawal", tx_hash=event.tx_hash, args=event.args)
        return
    if int(event.args["amount"]) != item.amount or event.args["to"] != item.address:
        raise Conflict("withdrawal.differs", f"the chain paid withdrawal {item.pk} otherwise than asked")
    gone = ledger.account_id(owner=None, kind="external", chain=event.network)
    posted = {"credit": gone, "amount": item.amount, "hold": item.pk, "reference": item.pk}
    ledger.apply_all(
        [ledger.Item(id=uuid5(item.pk, "withdrawn"), action="post", kind="withdrawal", **posted)]
    )
    item.state, item.resolved_at = State.FINAL, event.block_time
    item.tx_hash, item.block = event.tx_hash, event.block_number
    item.save()


def finish_withdrawal(intent: Intent) -> None:
    """The intent's end: success is posted by the event; a failure for good releases the hold."""
    if intent.state == Intent.State.FAILED:
        item = Withdrawal.objects.select_for_update().get(pk=UUID(intent.args[0][2:34]))
        if item.state == State.SENDING:
            release(item, State.FAILED)


def release(item: Withdrawal, state: State) -> None:
    """Void the hold of one that can never leave."""
    kind, hold = "withdrawal.released", item.pk
    void = ledger.Item(id=uuid5(hold, "released"), action="void", kind=kind, hold=hold, reference=hold)
    ledger.apply_all([void])
    item.state, item.resolved_at = state, timezone.now()
    item.save(update_fields=["state", "resolved_at"])
