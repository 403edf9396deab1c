"""Receipts: the miner's signature over the work, the platform's over what it measured (protocols 12)."""

from datetime import UTC, datetime
from functools import cache
from typing import Any

import orjson
from django.conf import settings

from aitbc.chain import keystore, signing
from aitbc.core import money
from apps.gpu import statements
from apps.gpu.meter import Bill

VERSION = "1"
MEMBERS = {"version", "statement", "units", "total", "fee", "started_at", "finished_at", "platform", "miner"}
ANCHOR = signing.Struct(
    "Anchor",
    (("leaf", "bytes32"), ("root", "bytes32"), ("tx_hash", "bytes32"), ("chain_id", "uint256"), ("block", "uint256")),
)
DISCLOSURE = signing.Struct("Disclosure", (("leaf", "bytes32"), ("salt", "bytes32")))


@cache
def platform_signer() -> keystore.Signer:
    return keystore.load("receipt")


def issue(
    *, statement: statements.WorkStatement, miner: str, signature: str, bill: Bill, started_ms: int, finished_ms: int
) -> dict[str, Any]:
    """The signed document: units in milliseconds, money with its asset, times to the millisecond."""
    signer = platform_signer()
    values = signed_values(statement.hash(), bill, started_ms, finished_ms, signer.key_id)
    digest = signing.digest(statements.domain(settings.CHAIN_ID), statements.RECEIPT, values)
    return {
        "version": VERSION,
        "statement": statement.as_json(),
        "units": bill.units,
        "total": {"amount": money.show(bill.total, 18), "asset": "AIT"},
        "fee": {"amount": money.show(bill.fee, 18), "asset": "AIT"},
        "started_at": _show_time(started_ms),
        "finished_at": _show_time(finished_ms),
        "platform": {"address": signer.address, "key_id": signer.key_id, "signature": signer.sign(digest)},
        "miner": {"address": miner, "signature": signature},
    }


def leaf(document: dict[str, Any]) -> bytes:
    """Keccak-256 of the canonical receipt without its anchor: what the Merkle tree holds."""
    bare = {name: document[name] for name in MEMBERS}
    # Strings and whole numbers only, for which sorted orjson is RFC 8785.
    return signing.keccak(orjson.dumps(bare, option=orjson.OPT_SORT_KEYS))


def sign_anchor(*, leaf: bytes, root: str, proof: list[str], tx_hash: str, chain_id: int, block: int) -> dict[str, Any]:
    """Where the receipt is anchored, signed, so that an offline reader can trust more than the root."""
    signer = platform_signer()
    values = {"leaf": leaf, "root": root, "tx_hash": tx_hash, "chain_id": chain_id, "block": block}
    signature = signer.sign(signing.digest(statements.domain(chain_id), ANCHOR, values))
    return {
        "root": root,
        "proof": proof,
        "tx_hash": tx_hash,
        "chain_id": chain_id,
        "block": block,
        "signature": signature,
    }


def disclose(document: dict[str, Any], *, anchor: dict[str, Any] | None, salt: str) -> dict[str, Any]:
    """The receipt as a party of its job sees it: with its anchor, and with the salt of the commitments.

    The salt is signed beside the receipt, not in it: the receipt may be public, the salt may not.
    """
    values = {"leaf": leaf(document), "salt": salt}
    digest = signing.digest(statements.domain(settings.CHAIN_ID), DISCLOSURE, values)
    return document | {"anchor": anchor, "salt": salt, "salt_signature": platform_signer().sign(digest)}


def signed_values(statement: bytes, bill: Bill, started_ms: int, finished_ms: int, key_id: str) -> dict[str, Any]:
    """The fields of `statements.RECEIPT`."""
    return {
        "statement": statement,
        "units": bill.units,
        "total": bill.total,
        "fee": bill.fee,
        "started_at": started_ms,
        "finished_at": finished_ms,
        "key_id": key_id,
    }


def _show_time(ms: int) -> str:
    moment = datetime.fromtimestamp(ms // 1000, UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{ms % 1000:03d}Z"


def network_addresses() -> tuple[str, ...]:
    """The platform's receipt keys that this installation trusts."""
    return (platform_signer().address, *settings.RECEIPT_ADDRESSES)
