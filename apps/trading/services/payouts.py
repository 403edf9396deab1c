"""Payouts: a bulk withdrawal that providers claim (protocols 1).

Sealing holds the amounts; at FINAL they become claimable on the chain, a liability; a final Claimed
ends it. So whatever happens, what was withdrawn and claimed never exceeds what the ledger held.
"""

from typing import Final
from uuid import UUID

from django.conf import settings
from django.db import transaction

from aitbc.chain import intents
from aitbc.chain.addresses import bytes32
from aitbc.chain.models import FinalEvent, Intent
from aitbc.core import db
from aitbc.core.clock import database_now
from aitbc.core.errors import Conflict
from aitbc.core.ids import uuid7
from apps.trading import claims
from apps.trading.models import PayoutBatch, PayoutLeaf, PayoutTarget
from apps.trading.models.reviews import REVIEW_TIME
from apps.trading.services import withdrawals

MOST_CLAIMS: Final = 200  # about 7 million gas: less than half of what a block of any network takes


def set_target(*, user: UUID, address: str | None) -> PayoutTarget | None:
    """Have earnings paid to `address` on this network from now on; None keeps them in the ledger."""
    if address is None:
        PayoutTarget.objects.filter(user_id=user).delete()
        return None
    checked = withdrawals.recipient(address)
    with transaction.atomic():
        target, created = PayoutTarget.objects.select_for_update().get_or_create(
            user_id=user, defaults={"network": settings.CHAIN_NETWORK, "address": checked, "set_at": database_now()}
        )
        if not created and target.address != checked:
            target.address, target.set_at = checked, database_now()
            target.save()
    return target


@transaction.atomic
def seal_payouts(*, minimum: int, most: int, wait_seconds: int, alone: int) -> PayoutBatch | None:
    """Hold what providers with a target have available and ask the chain to promise it; a batch of more than
    `alone` only once a second person has approved it.

    Amounts in units of 10**-18 AIT. A provider who spends his balance meanwhile is left out.
    """
    batch = PayoutBatch(id=uuid7(), network=settings.CHAIN_NETWORK)
    taken = db.rows(
        "SELECT * FROM payout_take(%s::uuid, %s, %s::int, %s::numeric, %s::numeric)",
        (batch.pk, batch.network, wait_seconds, minimum, most),
    )
    leaves = [
        PayoutLeaf(batch=batch, position=position, user_id=user, address=address, amount=int(amount), hold=hold)
        for position, user, address, amount, hold in taken
    ]
    if not leaves:
        return None
    batch.root, batch.count = "0x" + claims.tree(leaves).root.hex(), len(leaves)
    batch.total = sum(int(row[3]) for row in taken)
    if batch.total > alone:
        batch.state, batch.review_until = PayoutBatch.State.REVIEW, database_now() + REVIEW_TIME
    batch.save(force_insert=True)
    PayoutLeaf.objects.bulk_create(leaves)
    if batch.total <= alone:
        promise(batch)
    return batch


def promise(batch: PayoutBatch) -> None:
    """Ask the chain to promise one that awaits nobody's word."""
    batch.state = PayoutBatch.State.SEALED
    batch.save()
    args = [bytes32(batch.pk), batch.root, str(batch.total), str(batch.count), batch.approval]
    intents.request_intent("settlement.payout", f"payout:{batch.pk}", "openPayout", args)


def finish_payouts(intent: Intent) -> None:
    """Final: provider -> claimable[chain]. Failed for good: the holds are released."""
    batch = PayoutBatch.objects.select_for_update().get(pk=UUID(intent.args[0][2:34]))
    batch.tx_hash, batch.block, batch.gas_used = intent.tx_hash, intent.block_number, intent.gas_used
    batch.save()
    db.rows("SELECT payout_end(%s::uuid, %s)", (batch.pk, intent.state))


def sweep_claims() -> int:
    """Have the operator pay the gas of claims that nobody made in time, where a parameter says so; how many.
    Each provider still gets his leaf at his own address, once, whoever claims it first."""
    late = PayoutBatch.objects.raw("SELECT * FROM payouts_unclaimed(%s)", (settings.CHAIN_NETWORK,))
    return sum(_sweep(batch) for batch in late)


@transaction.atomic
def _sweep(batch: PayoutBatch) -> int:
    calls = Intent.objects.filter(network=batch.network, business_key__startswith=f"claims:{batch.pk}:")
    if calls.open().exists():
        return 0
    leaves = list(batch.leaves.order_by("position"))
    shares = [(leaf.position, (leaf.address, leaf.amount)) for leaf in leaves if leaf.claimed_at is None]
    args = claims.claim_many(batch=batch.pk, tree=claims.tree(leaves), shares=shares[:MOST_CLAIMS])
    intents.request_intent("settlement.claims", f"claims:{batch.pk}:{calls.count()}", "claimMany", args)
    return len(shares[:MOST_CLAIMS])


def receive_claim(event: FinalEvent) -> None:
    """A final Claimed: the tokens are gone, and with them the liability."""
    batch, position = UUID(event.args["batchId"][2:34]), int(event.args["index"])
    facts = batch, position, int(event.args["amount"]), event.tx_hash, event.block_time
    statement = "SELECT payout_claimed(%s::uuid, %s::int, %s::numeric, %s, %s::timestamptz)"
    if db.value(statement, facts) == "differs":
        raise Conflict("payout.claim_differs", f"claim {position} of {batch} has another amount")
