"""Signs transactions and stores their bytes in chain.db before anybody sends them."""

from typing import Any, Final
from uuid import UUID

from django.conf import settings
from django.db import transaction
from django.db.models import Max

from aitbc.chain.client import Client
from aitbc.chain.keystore import Signer
from aitbc.chain.models import Intent, SignedTransaction
from aitbc.core.errors import Conflict, Unavailable

PRIORITY_FEE: Final = 10**9  # wei per gas
GAS_MARGIN: Final = 1.25  # the estimate is for a state that other transactions may change
BUMP: Final = 1.25  # nodes refuse a replacement that pays less than 10 % more


def estimate(client: Client, *, sender: str, to: str | None, data: str) -> int:
    """Gas limit; Conflict "chain.reverted" with the reason if it would fail now."""
    call = {"from": sender, "data": data} | ({"to": to} if to else {})
    return int(client.estimate_gas(call) * GAS_MARGIN)


def next_nonce(client: Client, sender: str) -> int:
    """One above all that the node, the stored bytes and the intents of record know."""
    rows = SignedTransaction.objects.filter(sender=sender), Intent.objects.filter(sender=sender)
    used = [each.aggregate(last=Max("nonce"))["last"] for each in rows]
    return max([client.nonce(sender, "pending"), *(int(last) + 1 for last in used if last is not None)])


def fees(client: Client, *, previous: int | None) -> int:
    """Wei per gas: twice the base fee, enough to replace `previous`; Conflict "chain.fee_limit" beyond it."""
    [header] = client.headers([client.head()])
    if header is None:
        raise Unavailable("chain.unknown_block", "the node does not show its newest block")
    fee = max(2 * header.base_fee + PRIORITY_FEE, int((previous or 0) * BUMP) + 1)
    if fee > settings.CHAIN_MAX_FEE:
        raise Conflict("chain.fee_limit", f"a fee of {fee} wei per gas is above CHAIN_MAX_FEE")
    return fee


def sign_and_store(
    client: Client,
    signer: Signer,
    *,
    to: str | None,
    data: str,
    gas: int,
    epoch: int,
    nonce: int | None = None,
    intent_id: UUID | None = None,
) -> SignedTransaction:
    """Sign with the next nonce, or replace the bytes of `nonce` at a higher fee.

    Unique constraints on (sender, nonce, attempt) and (intent, attempt) refuse a second worker.
    """
    chosen = next_nonce(client, signer.address) if nonce is None else nonce
    earlier = SignedTransaction.objects.filter(sender=signer.address, nonce=chosen).order_by("attempt").last()
    attempt = earlier.attempt + 1 if earlier else 0
    max_fee = fees(client, previous=earlier.max_fee if earlier else None)
    fields: dict[str, Any] = {
        "type": 2,
        "chainId": client.chain_id,
        "nonce": chosen,
        "gas": gas,
        "maxFeePerGas": max_fee,
        "maxPriorityFeePerGas": min(max_fee, int(PRIORITY_FEE * BUMP**attempt) + attempt),
        "value": 0,
        "data": data,
    }
    raw, tx_hash = signer.sign_transaction(fields | ({"to": to} if to else {}))
    with transaction.atomic(using="chain"):
        return SignedTransaction.objects.create(
            intent_id=intent_id,
            sender=signer.address,
            nonce=chosen,
            attempt=attempt,
            raw=raw,
            tx_hash=tx_hash,
            gas=gas,
            max_fee=max_fee,
            epoch=epoch,
        )
