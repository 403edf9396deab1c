"""Deposits, settlement batches, payouts and reserves as the API shows them."""

import json
from contextlib import suppress
from typing import Any
from uuid import UUID

from django.conf import settings
from django.db.models import Q, QuerySet

from aitbc.chain.addresses import bytes32
from aitbc.core import db, money
from aitbc.core.errors import NotFound, Unavailable
from aitbc.core.pagination import decode, encode
from apps.trading import claims
from apps.trading.models import Asset, Deposit, PayoutLeaf, ReserveCheck, SettlementBatch, Withdrawal


def _show(units: int | None) -> str:
    return money.show(units or 0, 18)


def _ait(units: int | None) -> dict[str, str]:
    return {"amount": _show(units), "asset": "AIT"}


def _page(rows: list[Any], limit: int, show: Any, key: Any) -> dict[str, Any]:
    following = encode(*key(rows[limit - 1])) if len(rows) > limit else None
    return {"items": [show(row) for row in rows[:limit]], "next": following}


def _newest(found: QuerySet[Any], cursor: str | None, limit: int, show: Any) -> dict[str, Any]:
    """A page of rows whose ids are UUIDs and tell their age."""
    if key := decode(cursor, 1):
        with suppress(ValueError):
            found = found.filter(id__lt=UUID(str(key[0])))
    return _page(list(found[: limit + 1]), limit, show, lambda row: (row.pk,))


def _fields(row: Any, names: str) -> dict[str, Any]:
    return {name: getattr(row, name) for name in names.split()}


def deposits_of(*, user: UUID, cursor: str | None, limit: int) -> dict[str, Any]:
    """Credited deposits, newest block first."""
    found = Deposit.objects.filter(user_id=user).order_by("-block_number", "-ordinal", "-id")
    key = decode(cursor, 2)
    if key and all(isinstance(part, int) and 0 <= part < 2**31 for part in key):
        block, ordinal = key
        found = found.filter(Q(block_number__lt=block) | Q(block_number=block, ordinal__lt=ordinal))
    return _page(list(found[: limit + 1]), limit, _deposit, lambda row: (row.block_number, row.ordinal))


def _deposit(row: Deposit) -> dict[str, Any]:
    document = _ait(row.amount) | _fields(row, "id address tx_hash")
    return document | {"chain": row.network, "block": row.block_number, "credited_at": row.created_at}


def withdrawals_of(*, user: UUID, cursor: str | None, limit: int) -> dict[str, Any]:
    return _newest(Withdrawal.objects.filter(user_id=user), cursor, limit, withdrawal_document)


def withdrawal(*, user: UUID, withdrawal: UUID) -> dict[str, Any]:
    found = Withdrawal.objects.filter(pk=withdrawal, user_id=user).first()
    if found is None:
        raise NotFound("withdrawal.unknown", "you have no such withdrawal")
    return withdrawal_document(found)


def withdrawal_document(row: Withdrawal) -> dict[str, Any]:
    names = "id address state created_at not_before review_until tx_hash block resolved_at"
    return _ait(row.amount) | {"chain": row.network} | _fields(row, names)


def settlements(*, cursor: str | None, limit: int) -> dict[str, Any]:
    return _newest(SettlementBatch.objects.order_by("-id"), cursor, limit, settlement_document)


def settlement(batch: UUID) -> dict[str, Any]:
    found = SettlementBatch.objects.filter(pk=batch).first()
    if found is None:
        raise NotFound("settlement.unknown", "there is no such settlement batch")
    return settlement_document(found)


def settlement_document(row: SettlementBatch) -> dict[str, Any]:
    names = "id state root receipts tx_hash block gas_used created_at finalized_at"
    return {"chain": row.network} | _fields(row, names)


def payouts_of(*, user: UUID, cursor: str | None, limit: int) -> dict[str, Any]:
    """The caller's leaves, newest first, with all that `claim` of the contract takes."""
    found = PayoutLeaf.objects.filter(user_id=user).select_related("batch").order_by("-id")
    key = decode(cursor, 1)
    if key and isinstance(key[0], int) and 0 <= key[0] < 2**63:
        found = found.filter(id__lt=key[0])
    return _page(list(found[: limit + 1]), limit, _payout, lambda row: (row.pk,))


def _payout(row: PayoutLeaf) -> dict[str, Any]:
    claimable = row.batch.state == row.batch.State.FINAL and row.claimed_at is None
    return _ait(row.amount) | {
        "batch": row.batch_id,
        "chain": row.batch.network,
        "state": "claimed" if row.claimed_at else row.batch.state,
        "claim": _claim(row) if claimable else None,
        "claim_tx": row.claim_tx,
        "claimed_at": row.claimed_at,
    }


def _claim(row: PayoutLeaf) -> dict[str, Any]:
    proof = claims.tree(row.batch.leaves.order_by("position")).proof(row.position)
    return {
        "batch_id": bytes32(row.batch_id),
        "index": row.position,
        "account": row.address,
        "units": str(row.amount),
        "proof": ["0x" + node.hex() for node in proof],
    }


def reserves(*, asset: str) -> dict[str, Any]:
    """The last comparison; Unavailable "reserves.unchecked" before the first."""
    if not Asset.objects.filter(code=asset).exists():
        raise NotFound("asset.unknown", "this ledger has no such asset")
    found = ReserveCheck.objects.filter(network=settings.CHAIN_NETWORK, asset=asset).first()
    if found is None:
        raise Unavailable("reserves.unchecked", "the reserves have not been compared yet")
    return _reserves_document(found)


def liabilities() -> dict[str, Any]:
    """The last proof, beside the reserve at the same final block; Unavailable before the first."""
    found = _proven()
    ours = (found.contract or 0) + (found.unswept or 0) - (found.pending or 0)
    proven = {"root": found.root, "total": str(found.owed), "covered": ours >= (found.owed or 0)}
    return _reserves_document(found) | proven | {"users": found.users}


def liability_proof(*, user: UUID) -> dict[str, Any]:
    """The owner's leaf and path in the last tree; NotFound "liabilities.none" for who had no account then."""
    last = _proven()
    found = db.value("SELECT liability_proof(%s::uuid, %s::uuid)::text", (last.proof, user))
    if found is None:
        raise NotFound("liabilities.none", "the last proof of liabilities knows no account of yours")
    document: dict[str, Any] = json.loads(found)
    return document | {"root": last.root, "total": str(last.owed)}


def _proven() -> ReserveCheck:
    found = ReserveCheck.objects.filter(network=settings.CHAIN_NETWORK, proof__isnull=False).first()
    if found is None:
        raise Unavailable("liabilities.unproven", "the liabilities have not been proven yet")
    return found


def _reserves_document(found: ReserveCheck) -> dict[str, Any]:
    return {
        "asset": found.asset,
        "ledger_liabilities": _show(found.liabilities),
        "onchain": _show((found.contract or 0) + (found.unswept or 0)),
        "pending": _show(found.pending),
        "difference": _show(found.difference),
        "chain": found.network,
        "block": found.block_number,
        "checked_at": found.checked_at,
    }
