"""Receipts: the miner's signature over the work, the platform's over what it measured (protocols 12)."""

import re
from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from typing import Any

import orjson
from django.conf import settings

from aitbc.chain import keystore, merkle, networks, signing
from aitbc.core import money
from aitbc.core.errors import DomainError
from apps.gpu import statements
from apps.gpu.meter import Bill

VERSION = "1"
_MEMBERS = {
    "version",
    "statement",
    "units",
    "total",
    "fee",
    "started_at",
    "finished_at",
    "platform",
    "miner",
}
_ANCHOR = signing.Struct(
    "Anchor",
    (
        ("leaf", "bytes32"),
        ("root", "bytes32"),
        ("tx_hash", "bytes32"),
        ("chain_id", "uint256"),
        ("block", "uint256"),
    ),
)
_HASH = re.compile(r"0x[0-9a-f]{64}", re.ASCII)
_SIGNATURE = re.compile(r"0x[0-9a-f]{130}", re.ASCII)
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", re.ASCII)


@cache
def platform_signer() -> keystore.Signer:
    return keystore.load("receipt")


def issue(*, statement: statements.WorkStatement, miner: str, signature: str, bill: Bill, started_ms: int,
          finished_ms: int) -> dict[str, Any]:  # fmt: skip
    """The signed document: units in milliseconds, money with its asset, times to the millisecond."""
    signer = platform_signer()
    values = _values(statement.hash(), bill, started_ms, finished_ms, signer.key_id)
    digest = signing.digest(statements.domain(networks.chain_id()), statements.RECEIPT, values)
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
    bare = {name: document[name] for name in _MEMBERS}
    # Strings and whole numbers only, for which sorted orjson is RFC 8785.
    return signing.keccak(orjson.dumps(bare, option=orjson.OPT_SORT_KEYS))


def sign_anchor(*, leaf: bytes, root: str, proof: list[str], tx_hash: str, chain_id: int, block: int) -> dict[str, Any]:
    """Where the receipt is anchored, signed, so that an offline reader can trust more than the root."""
    signer = platform_signer()
    values = {"leaf": leaf, "root": root, "tx_hash": tx_hash, "chain_id": chain_id, "block": block}
    signature = signer.sign(signing.digest(statements.domain(chain_id), _ANCHOR, values))
    return {
        "root": root,
        "proof": proof,
        "tx_hash": tx_hash,
        "chain_id": chain_id,
        "block": block,
        "signature": signature,
    }


@dataclass(frozen=True, slots=True)
class Verdict:
    """The public answer: every check by name; `merkle` is None while nothing is anchored."""

    checks: dict[str, bool | None]
    reason: str | None

    @property
    def valid(self) -> bool:
        return self.reason is None

    def as_json(self) -> dict[str, Any]:
        return {"valid": self.valid, "checks": self.checks, "reason": self.reason}


def verify(document: Any, *, platform_addresses: Collection[str], chain_id: int) -> Verdict:
    """Check shape, both signatures, the price and the anchor. Needs no store and no network."""
    checks: dict[str, bool | None] = dict.fromkeys(("signature", "counter_signature", "price", "merkle"), False)
    try:
        statement, bill = _parse(document)
    except (DomainError, KeyError, TypeError, ValueError, AttributeError) as error:
        reason = error.message if isinstance(error, DomainError) else "a member is missing or malformed"
        return Verdict(checks, f"not a receipt: {reason}")
    domain = statements.domain(chain_id)
    values = _values(
        statement.hash(),
        bill,
        _read_time(document["started_at"]),
        _read_time(document["finished_at"]),
        document["platform"]["key_id"],
    )
    reasons = [
        _check_platform(document, signing.digest(domain, statements.RECEIPT, values), platform_addresses),
        _check_miner(document, signing.digest(domain, statements.WORK_STATEMENT, statement.values())),
        _check_price(document, statement, bill),
        _check_anchor(document, platform_addresses),
    ]
    for name, reason in zip(("signature", "counter_signature", "price", "merkle"), reasons, strict=True):
        checks[name] = reason is None
    if reasons[3] is None and document.get("anchor") is None:
        checks["merkle"] = None
    return Verdict(checks, next((reason for reason in reasons if reason), None))


def _parse(document: Any) -> tuple[statements.WorkStatement, Bill]:
    if not isinstance(document, dict) or not _MEMBERS <= set(document) <= _MEMBERS | {"anchor", "salt"}:
        raise ValueError
    if document["version"] != VERSION or set(document["platform"]) != {"address", "key_id", "signature"}:
        raise ValueError
    if set(document["miner"]) != {"address", "signature"} or type(document["units"]) is not int:
        raise ValueError
    for name in ("total", "fee"):
        if set(document[name]) != {"amount", "asset"} or document[name]["asset"] != "AIT":
            raise ValueError
    total, fee = (money.units(document[name]["amount"], 18) for name in ("total", "fee"))
    return statements.WorkStatement.from_json(document["statement"]), Bill(document["units"], total, fee)


def _check_platform(document: dict[str, Any], digest: bytes, addresses: Collection[str]) -> str | None:
    platform = document["platform"]
    if not _signed_by(digest, platform["signature"], platform["address"]):
        return "the platform's signature does not match the receipt"
    if platform["address"] not in addresses:
        return "the receipt was signed by a key that is not the platform's"
    return None


def _check_miner(document: dict[str, Any], digest: bytes) -> str | None:
    miner = document["miner"]
    if not _signed_by(digest, miner["signature"], miner["address"]):
        return "the miner's signature does not match the work statement"
    return None


def _check_price(document: dict[str, Any], statement: statements.WorkStatement, bill: Bill) -> str | None:
    shown = (document["total"]["amount"], document["fee"]["amount"])
    if shown != (money.show(bill.total, 18), money.show(bill.fee, 18)):
        return "an amount is not in its plain form"
    if not 0 <= bill.units <= statement.max_units or not 0 <= bill.fee <= bill.total:
        return "units or fee exceed what was agreed"
    if bill.total != money.ceil_div(bill.units * statement.unit_price, 1000):
        return "the total is not the units at the agreed price"
    elapsed = _read_time(document["finished_at"]) - _read_time(document["started_at"])
    return None if bill.units <= elapsed else "more units than time between start and end"


def _check_anchor(document: dict[str, Any], addresses: Collection[str]) -> str | None:
    anchor = document.get("anchor")
    if anchor is None:
        return None
    if not isinstance(anchor, dict) or set(anchor) != {"root", "proof", "tx_hash", "chain_id", "block", "signature"}:
        return "the anchor is malformed"
    hashes = [anchor["root"], anchor["tx_hash"], *anchor["proof"]]
    if not all(isinstance(h, str) and _HASH.fullmatch(h) for h in hashes):
        return "the anchor is malformed"
    node = leaf(document)
    proof = [bytes.fromhex(step[2:]) for step in anchor["proof"]]
    if not merkle.verify(node, proof, bytes.fromhex(anchor["root"][2:])):
        return "the Merkle proof does not lead to the anchored root"
    return _check_anchor_signature(anchor, node, document["platform"]["address"], addresses)


def _check_anchor_signature(
    anchor: dict[str, Any], node: bytes, address: str, addresses: Collection[str]
) -> str | None:
    values = {name: anchor[name] for name in ("root", "tx_hash", "chain_id", "block")} | {"leaf": node}
    try:
        digest = signing.digest(statements.domain(anchor["chain_id"]), _ANCHOR, values)
    except (DomainError, TypeError):
        return "the anchor is malformed"
    signed = _signed_by(digest, anchor["signature"], address) and address in addresses
    return None if signed else "the platform's signature does not match the anchor"


def _signed_by(digest: bytes, signature: Any, address: Any) -> bool:
    """Lower-case hex only: another spelling of one signature would be a byte that nobody signed."""
    if not isinstance(signature, str) or not _SIGNATURE.fullmatch(signature):
        return False
    try:
        return signing.recover(digest, signature) == address
    except DomainError:
        return False


def _values(statement: bytes, bill: Bill, started_ms: int, finished_ms: int, key_id: str) -> dict[str, Any]:
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


def _read_time(text: str) -> int:
    if not _TIME.fullmatch(text):
        raise ValueError(text)
    moment = datetime.fromisoformat(text[:19]).replace(tzinfo=UTC)
    return int(moment.timestamp()) * 1000 + int(text[20:23])


def network_addresses() -> tuple[str, ...]:
    """The platform's receipt keys that this installation trusts."""
    return (platform_signer().address, *settings.RECEIPT_ADDRESSES)
