"""Payouts: a bulk withdrawal that providers claim (protocols 1).

Sealing holds the amounts; at FINAL they become claimable on the chain, a liability; a final Claimed
ends it. So whatever happens, what was withdrawn and claimed never exceeds what the ledger held.
"""

from dataclasses import dataclass
from datetime import timedelta
from typing import Final
from uuid import UUID, uuid5

from django.conf import settings
from django.db import transaction
from django.utils import timezone

from aitbc.chain import intents, merkle, signing
from aitbc.chain.addresses import bytes32
from aitbc.chain.models import FinalEvent, Intent
from aitbc.core import db
from aitbc.core.errors import Conflict
from aitbc.core.ids import uuid7
from apps.trading import claims
from apps.trading.models import PayoutBatch, PayoutLeaf, PayoutTarget
from apps.trading.models.reviews import REVIEW_TIME
from apps.trading.services import ledger, withdrawals

MOST_LEAVES: Final = 1000
MOST_CLAIMS: Final = 200  # about 7 million gas: less than half of what a block of any network takes
_DUE = """
SELECT t.user_id, t.address, a.id, a.posted - a.held FROM trading_payouttarget t
  JOIN trading_account a ON a.owner_id = t.user_id AND a.asset_id = 'AIT' AND a.kind = 'available'
 WHERE t.network = %s AND t.set_at <= clock_timestamp() - %s * interval '1 second'
   AND a.posted - a.held >= %s ORDER BY a.id LIMIT %s"""


@dataclass(frozen=True, slots=True)
class Share:
    user: UUID
    address: str
    account: int
    amount: int


def set_target(*, user: UUID, address: str | None) -> PayoutTarget | None:
    """Have earnings paid to `address` on this network from now on; None keeps them in the ledger."""
    if address is None:
        PayoutTarget.objects.filter(user_id=user).delete()
        return None
    checked = withdrawals.recipient(address)
    with transaction.atomic():
        target, created = PayoutTarget.objects.select_for_update().get_or_create(
            user_id=user,
            defaults={"network": settings.CHAIN_NETWORK, "address": checked, "set_at": timezone.now()},
        )
        if not created and target.address != checked:
            target.address, target.set_at = checked, timezone.now()
            target.save()
    return target


def _shares(*, minimum: int, most: int, wait_seconds: int) -> list[Share]:
    """Who is due what, together at most `most`: the contract asks for a second key above."""
    found = db.rows(_DUE, (settings.CHAIN_NETWORK, wait_seconds, minimum, MOST_LEAVES))
    shares, left = [], most
    for user, address, account, available in found:
        amount = min(int(available), left)
        if amount >= minimum:
            shares.append(Share(user, signing.checksum_address(bytes(address)), account, amount))
            left -= amount
    return shares


@transaction.atomic
def seal_payouts(*, minimum: int, most: int, wait_seconds: int, alone: int) -> PayoutBatch | None:
    """Hold what providers with a target have available and ask the chain to promise it; a batch of more than
    `alone` only once a second person has approved it.

    Amounts in units of 10**-18 AIT. A provider who spends his balance meanwhile is left out.
    """
    batch_id = uuid7()
    shares = _shares(minimum=minimum, most=most, wait_seconds=wait_seconds)
    holds = [uuid7() for _ in shares]
    codes = ledger.apply(
        [
            ledger.Item(hold, "hold", "payout.hold", share.account, amount=share.amount, reference=batch_id)
            for hold, share in zip(holds, shares, strict=True)
        ]
    )
    kept = [(h, s) for h, s, code in zip(holds, shares, codes, strict=True) if code == "ok"]
    return _seal(batch_id, kept, alone) if kept else None


def _seal(batch_id: UUID, kept: list[tuple[UUID, Share]], alone: int) -> PayoutBatch:
    hashes = [
        claims.leaf(batch=batch_id, position=i, address=share.address, amount=share.amount)
        for i, (_, share) in enumerate(kept)
    ]
    total = sum(share.amount for _, share in kept)
    batch = PayoutBatch.objects.create(
        id=batch_id,
        state=PayoutBatch.State.SEALED if total <= alone else PayoutBatch.State.REVIEW,
        review_until=None if total <= alone else timezone.now() + REVIEW_TIME,
        network=settings.CHAIN_NETWORK,
        root="0x" + merkle.root(hashes).hex(),
        total=total,
        count=len(kept),
    )
    PayoutLeaf.objects.bulk_create(
        PayoutLeaf(
            batch=batch, position=i, user_id=share.user, address=share.address, amount=share.amount, hold=hold
        )
        for i, (hold, share) in enumerate(kept)
    )
    if total <= alone:
        promise(batch)
    return batch


def promise(batch: PayoutBatch) -> None:
    """Ask the chain to promise one that awaits nobody's word."""
    batch.state = PayoutBatch.State.SEALED
    batch.save()
    intents.request_intent(
        kind="settlement.payout",
        business_key=f"payout:{batch.pk}",
        contract="Settlement",
        function="openPayout",
        args=[bytes32(batch.pk), batch.root, str(batch.total), str(batch.count), batch.approval],
    )


def finish_payouts(intent: Intent) -> None:
    """Final: provider -> claimable[chain]. Failed for good: the holds are released."""
    batch = PayoutBatch.objects.select_for_update().get(pk=UUID(intent.args[0][2:34]))
    final = intent.state == Intent.State.FINAL
    batch.tx_hash, batch.block, batch.gas_used = intent.tx_hash, intent.block_number, intent.gas_used
    resolve(batch, PayoutBatch.State.FINAL if final else PayoutBatch.State.FAILED)


def resolve(batch: PayoutBatch, state: PayoutBatch.State) -> None:
    """Final: each hold becomes claimable; any other end releases them."""
    final = state == PayoutBatch.State.FINAL
    ledger.apply_all([_resolution(batch, item, final=final) for item in batch.leaves.order_by("position")])
    batch.state, batch.finalized_at = state, timezone.now()
    batch.save()


def _resolution(batch: PayoutBatch, item: PayoutLeaf, *, final: bool) -> ledger.Item:
    if not final:
        return ledger.Item(id=uuid5(item.hold, "void"), action="void", kind="payout.void", hold=item.hold)
    owed = {"credit": _claimable(batch, item), "amount": item.amount, "reference": batch.pk}
    return ledger.Item(
        id=uuid5(item.hold, "claimable"), action="post", kind="payout.claimable", hold=item.hold, **owed
    )


def _claimable(batch: PayoutBatch, item: PayoutLeaf) -> int:
    return ledger.account_id(owner=item.user_id, kind="claimable", chain=batch.network)


def sweep_claims(*, older_than: int) -> int:
    """Have the operator pay the gas of claims that nobody made for `older_than` seconds; how many. Each
    provider still gets his leaf at his own address, once, whoever claims it first."""
    late = PayoutBatch.objects.filter(
        network=settings.CHAIN_NETWORK,
        state=PayoutBatch.State.FINAL,
        finalized_at__lte=timezone.now() - timedelta(seconds=older_than),
    )
    return sum(_sweep(batch) for batch in late.filter(leaves__claimed_at=None).distinct()[:10])


@transaction.atomic
def _sweep(batch: PayoutBatch) -> int:
    calls = Intent.objects.filter(network=batch.network, business_key__startswith=f"claims:{batch.pk}:")
    if calls.open().exists():
        return 0
    leaves = list(batch.leaves.order_by("position"))
    shares = [(leaf.position, (leaf.address, leaf.amount)) for leaf in leaves if leaf.claimed_at is None]
    intents.request_intent(
        kind="settlement.claims",
        business_key=f"claims:{batch.pk}:{calls.count()}",
        contract="Settlement",
        function="claimMany",
        args=claims.claim_many(batch=batch.pk, tree=claims.tree(leaves), shares=shares[:MOST_CLAIMS]),
    )
    return len(shares[:MOST_CLAIMS])


def receive_claim(event: FinalEvent) -> None:
    """A final Claimed: the tokens are gone, and with them the liability."""
    item = (
        PayoutLeaf.objects.select_for_update()
        .select_related("batch")
        .get(batch_id=UUID(event.args["batchId"][2:34]), position=int(event.args["index"]))
    )
    if int(event.args["amount"]) != item.amount:
        raise Conflict("payout.claim_differs", f"claim {item.position} of {item.batch_id} has another amount")
    sides = _claimable(item.batch, item), ledger.account_id(owner=None, kind="external", chain=event.network)
    claimed, amount = uuid5(item.hold, "claimed"), item.amount
    ledger.apply_all(
        [ledger.Item(claimed, "transfer", "payout.claimed", *sides, amount, reference=item.batch_id)]
    )
    item.claim_tx, item.claimed_at = event.tx_hash, event.block_time
    item.save(update_fields=["claim_tx", "claimed_at"])
