"""Verifying a receipt, with no store and no network: the public endpoint and `manage.py verify_receipt`.

Each byte of a receipt is either signed, recomputed, or has one plain form only; so none can change.
"""

import re
from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from aitbc.chain import merkle, signing
from aitbc.core import money
from aitbc.core.errors import DomainError
from apps.gpu import receipts, statements
from apps.gpu.meter import Bill

CHECKS = ("signature", "counter_signature", "price", "merkle")
_HASH = re.compile(r"0x[0-9a-f]{64}", re.ASCII)
_SIGNATURE = re.compile(r"0x[0-9a-f]{130}", re.ASCII)
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", re.ASCII)
_ANCHOR = {"root", "proof", "tx_hash", "chain_id", "block", "signature"}
_MALFORMED = (KeyError, TypeError, ValueError, AttributeError, OverflowError)


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


@dataclass(frozen=True, slots=True)
class _Parsed:
    """A receipt of the right shape, and what its two signers signed."""

    document: dict[str, Any]
    statement: statements.WorkStatement
    bill: Bill
    elapsed_ms: int
    platform_digest: bytes
    miner_digest: bytes
    leaf: bytes


def refuse(reason: str) -> Verdict:
    """The verdict on something that is no receipt at all."""
    return Verdict(dict.fromkeys(CHECKS, False), reason)


def verify(document: Any, *, platform_addresses: Collection[str], chain_id: int) -> Verdict:
    """Check shape, both signatures, the price and the anchor; the reason is the first that fails."""
    try:
        parsed = _parse(document, chain_id)
    except (DomainError, _Shape) as error:
        return refuse(f"not a receipt: {error.message}")
    except _MALFORMED:
        return refuse("not a receipt: a member is missing or malformed")
    reasons = (
        _check_platform(parsed, platform_addresses),
        _check_miner(parsed),
        _check_price(parsed),
        _check_anchor(parsed, platform_addresses),
    )
    checks: dict[str, bool | None] = {name: reason is None for name, reason in zip(CHECKS, reasons, strict=True)}
    if document.get("anchor") is None:
        checks["merkle"] = None
    salt = _check_salt(parsed, chain_id)
    if salt is not None:
        checks["signature"] = False
    return Verdict(checks, next((reason for reason in (*reasons, salt) if reason), None))


class _Shape(Exception):
    """What is wrong with a member, in words for the reader."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


def _parse(document: Any, chain_id: int) -> _Parsed:
    _check_shape(document)
    total, fee = (money.units(document[name]["amount"], 18) for name in ("total", "fee"))
    statement = statements.WorkStatement.from_json(document["statement"])
    bill = Bill(document["units"], total, fee)
    started, finished = (_read_time(document[name]) for name in ("started_at", "finished_at"))
    key_id = document["platform"]["key_id"]
    values = receipts.signed_values(statement.hash(), bill, started, finished, key_id)
    domain = statements.domain(chain_id)
    return _Parsed(
        document=document,
        statement=statement,
        bill=bill,
        elapsed_ms=finished - started,
        platform_digest=signing.digest(domain, statements.RECEIPT, values),
        miner_digest=signing.digest(domain, statements.WORK_STATEMENT, statement.values()),
        leaf=receipts.leaf(document),
    )


def _check_shape(document: Any) -> None:
    """The members of each level, no more and no less, and the type of each."""
    optional = {"anchor", "salt", "salt_signature"}
    if not isinstance(document, dict) or not receipts.MEMBERS <= set(document) <= receipts.MEMBERS | optional:
        raise _Shape("members are missing or unknown")
    if document["version"] != receipts.VERSION:
        raise _Shape("unknown version")
    if type(document["units"]) is not int:
        raise _Shape("units is not a whole number")
    _check_texts(document, "platform", {"address", "key_id", "signature"})
    _check_texts(document, "miner", {"address", "signature"})
    for name in ("total", "fee"):
        _check_texts(document, name, {"amount", "asset"})
        if document[name]["asset"] != "AIT":
            raise _Shape(f"the asset of {name} is not AIT")
    if ("salt" in document) != ("salt_signature" in document):
        raise _Shape("a salt and its signature come together")


def _check_texts(document: dict[str, Any], name: str, members: set[str]) -> None:
    inner = document[name]
    if not isinstance(inner, dict) or set(inner) != members:
        raise _Shape(f"{name} has other members than {', '.join(sorted(members))}")
    if not all(isinstance(text, str) for text in inner.values()):
        raise _Shape(f"a member of {name} is not a text")


def _read_time(text: Any) -> int:
    """Milliseconds since the epoch of the one form that the platform writes."""
    if not isinstance(text, str) or not _TIME.fullmatch(text):
        raise _Shape("a time is not in its plain form")
    moment = datetime.fromisoformat(text[:19]).replace(tzinfo=UTC)
    return int(moment.timestamp()) * 1000 + int(text[20:23])


def _check_platform(parsed: _Parsed, addresses: Collection[str]) -> str | None:
    platform = parsed.document["platform"]
    if not _signed_by(parsed.platform_digest, platform["signature"], platform["address"]):
        return "the platform's signature does not match the receipt"
    if platform["address"] not in addresses:
        return "the receipt was signed by a key that is not the platform's"
    return None


def _check_salt(parsed: _Parsed, chain_id: int) -> str | None:
    if "salt" not in parsed.document:
        return None
    salt, signature = parsed.document["salt"], parsed.document["salt_signature"]
    if not isinstance(salt, str) or not _HASH.fullmatch(salt):
        return "the salt is malformed"
    values = {"leaf": parsed.leaf, "salt": salt}
    digest = signing.digest(statements.domain(chain_id), receipts.DISCLOSURE, values)
    signed = _signed_by(digest, signature, parsed.document["platform"]["address"])
    return None if signed else "the platform's signature does not match the salt"


def _check_miner(parsed: _Parsed) -> str | None:
    miner = parsed.document["miner"]
    signed = _signed_by(parsed.miner_digest, miner["signature"], miner["address"])
    return None if signed else "the miner's signature does not match the work statement"


def _check_price(parsed: _Parsed) -> str | None:
    bill, statement = parsed.bill, parsed.statement
    shown = tuple(parsed.document[name]["amount"] for name in ("total", "fee"))
    if shown != (money.show(bill.total, 18), money.show(bill.fee, 18)):
        return "an amount is not in its plain form"
    if not 0 <= bill.units <= statement.max_units or not 0 <= bill.fee <= bill.total:
        return "units or fee exceed what was agreed"
    if bill.total != money.ceil_div(bill.units * statement.unit_price, 1000):
        return "the total is not the units at the agreed price"
    return None if bill.units <= parsed.elapsed_ms else "more units than time between start and end"


def _check_anchor(parsed: _Parsed, addresses: Collection[str]) -> str | None:
    anchor = parsed.document.get("anchor")
    if anchor is None:
        return None
    if not isinstance(anchor, dict) or set(anchor) != _ANCHOR or not isinstance(anchor["proof"], list):
        return "the anchor is malformed"
    hashes = [anchor["root"], anchor["tx_hash"], *anchor["proof"]]
    if not all(isinstance(text, str) and _HASH.fullmatch(text) for text in hashes):
        return "the anchor is malformed"
    proof = [bytes.fromhex(step[2:]) for step in anchor["proof"]]
    if not merkle.verify(parsed.leaf, proof, bytes.fromhex(anchor["root"][2:])):
        return "the Merkle proof does not lead to the anchored root"
    return _check_anchor_signature(parsed, anchor, addresses)


def _check_anchor_signature(parsed: _Parsed, anchor: dict[str, Any], addresses: Collection[str]) -> str | None:
    address = parsed.document["platform"]["address"]
    values = {name: anchor[name] for name in ("root", "tx_hash", "chain_id", "block")} | {"leaf": parsed.leaf}
    try:
        digest = signing.digest(statements.domain(anchor["chain_id"]), receipts.ANCHOR, values)
    except (DomainError, TypeError):
        return "the anchor is malformed"
    signed = _signed_by(digest, anchor["signature"], address) and address in addresses
    return None if signed else "the platform's signature does not match the anchor"


def _signed_by(digest: bytes, signature: Any, address: str) -> bool:
    """Lower-case hex only: another spelling of one signature would be a byte that nobody signed."""
    if not isinstance(signature, str) or not _SIGNATURE.fullmatch(signature):
        return False
    try:
        return signing.recover(digest, signature) == address
    except DomainError:
        return False
