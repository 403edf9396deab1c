"""What miner and platform sign about one piece of work (EIP-712), and the commitments in it.

Pure functions over `aitbc.chain.signing`: the miner's daemon, the platform and the offline verifier
share them, so they must not import models. Protocol: a receipt carries two signatures, the miner's
over the `WorkStatement` and the platform's over the `Receipt` that holds the statement's hash.
"""

import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

import rfc8785

from aitbc.chain.signing import Domain, Struct, keccak
from aitbc.core.errors import Invalid

UNIT: Final = "device_second"

WORK_STATEMENT: Final = Struct(
    "WorkStatement",
    (
        ("job", "bytes32"),
        ("kind", "string"),
        ("client", "bytes32"),
        ("miner", "bytes32"),
        ("attempt", "uint256"),
        ("lease", "bytes32"),
        ("input_commitment", "bytes32"),
        ("output_commitment", "bytes32"),
        ("unit", "string"),
        ("unit_price", "uint256"),  # smallest units of the asset per device second
        ("max_units", "uint256"),  # milliseconds of a device
    ),
)
RECEIPT: Final = Struct(
    "Receipt",
    (
        ("statement", "bytes32"),  # struct hash of the WorkStatement
        ("units", "uint256"),  # milliseconds of a device
        ("total", "uint256"),
        ("fee", "uint256"),
        ("started_at", "uint256"),  # milliseconds since the epoch
        ("finished_at", "uint256"),
        ("key_id", "string"),
    ),
)
MINER_REGISTRATION: Final = Struct(
    "MinerRegistration", (("prefix", "string"), ("nonce", "string"), ("address", "address"))
)
HEARTBEAT: Final = Struct(
    "Heartbeat", (("miner", "bytes32"), ("sequence", "uint256"), ("previous", "bytes32"), ("body", "bytes32"))
)
GENESIS: Final = bytes(32)  # `previous` of a miner's first heartbeat


@lru_cache(maxsize=16)
def domain(chain_id: int) -> Domain:
    """The domain of receipts and registrations; no contract checks these signatures."""
    return Domain("AITBC", "1", chain_id)


def uuid32(value: uuid.UUID | str) -> bytes:
    """A UUID's 16 bytes, right-aligned in 32, as an integer would be."""
    return bytes(16) + uuid.UUID(str(value)).bytes


def hex32(value: bytes | str) -> bytes:
    """32 bytes of `0x` and 64 hex digits; Invalid "statement.hash" otherwise."""
    if isinstance(value, bytes):
        raw = value
    else:
        try:
            raw = bytes.fromhex(value.removeprefix("0x"))
        except ValueError as error:
            raise Invalid("statement.hash", "not a hash in hex") from error
    if len(raw) != 32:
        raise Invalid("statement.hash", "a hash has 32 bytes")
    return raw


def canonical(value: Any) -> bytes:
    """RFC 8785 bytes of a JSON value; Invalid "statement.not_canonical" for NaN, infinities and
    integers that two JSON parsers need not read alike."""
    try:
        return rfc8785.dumps(value)
    except rfc8785.IntegerDomainError:
        return rfc8785.dumps(_as_doubles(value))
    except (rfc8785.CanonicalizationError, UnicodeEncodeError) as error:
        raise Invalid("statement.not_canonical", f"no canonical JSON for this value: {error}") from error


def _as_doubles(value: Any) -> Any:
    """Whole numbers beyond 2**53 - 1 as the doubles they are: 1e17 comes back from a database or another
    parser as 100000000000000000. A number that is no double would change its digits, and is refused."""
    if isinstance(value, dict):
        return {name: _as_doubles(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_as_doubles(inner) for inner in value]
    if type(value) is int and abs(value) >= 2**53:
        try:
            if rfc8785.dumps(float(value)) == str(value).encode():
                return float(value)
        except OverflowError:
            pass  # beyond every double
        raise Invalid("statement.not_canonical", f"{value} is not the same number in every JSON parser")
    return value


def commitment(*, salt: bytes, value: Any, artifact: str | None = None) -> bytes:
    """keccak(salt || keccak(canonical JSON)): hides a guessable value from all but the parties. `artifact` is
    the SHA-256 of the one that takes the value's place, if one does."""
    if artifact is not None:
        return artifact_commitment(salt=salt, sha256=artifact)
    return commitment_of(salt=salt, canonical_json=canonical(value))


def commitment_of(*, salt: bytes, canonical_json: bytes) -> bytes:
    """`commitment` of a value whose canonical JSON is at hand already."""
    return keccak(salt + keccak(canonical_json))


def artifact_commitment(*, salt: bytes, sha256: str) -> bytes:
    """The commitment to an input or output that travels as an artifact: keccak(salt || keccak(SHA-256))."""
    return keccak(salt + keccak(hex32(sha256)))


def lease_hash(token: str) -> bytes:
    """What a statement says of the lease: its token stays between miner and platform."""
    return keccak(token.encode())


@dataclass(frozen=True, kw_only=True)
class WorkStatement:
    """Job and miner are UUIDs as text; hashes are `0x` hex; `unit_price` counts smallest units per
    device second and `max_units` milliseconds."""

    job: str
    kind: str
    client: str
    miner: str
    attempt: int
    lease: str
    input_commitment: str
    output_commitment: str
    unit_price: int
    max_units: int
    unit: str = UNIT

    def values(self) -> dict[str, Any]:
        """The fields as `WORK_STATEMENT` encodes them."""
        return vars(self) | {"job": uuid32(self.job), "miner": uuid32(self.miner)}

    def hash(self) -> bytes:
        return WORK_STATEMENT.hash(self.values())

    def as_json(self) -> dict[str, Any]:
        """Whole numbers as text, because a price in smallest units exceeds JSON's safe integers."""
        numbers = {"unit_price": str(self.unit_price), "max_units": str(self.max_units)}
        return vars(self) | numbers

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "WorkStatement":
        """Invalid "statement.malformed" if a field is missing, added, or not in its one plain form:
        a byte that could change without changing the hash would be a byte nobody signed."""
        if value.keys() != _PLAIN.keys():
            raise Invalid("statement.malformed", f"a work statement has the fields {sorted(_PLAIN)}")
        for name, pattern in _PLAIN.items():
            text = value[name]
            if type(text) is not (int if name == "attempt" else str) or not pattern.fullmatch(str(text)):
                raise Invalid("statement.malformed", f"{name} of the statement is not in its plain form")
        numbers = {name: int(value[name]) for name in ("unit_price", "max_units")}
        return cls(**{**value, **numbers})


_WHOLE = re.compile(r"0|[1-9][0-9]{0,38}")
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_HASH = re.compile(r"0x[0-9a-f]{64}")
_TEXT = re.compile(r"[a-z][a-z0-9_.]{0,63}")
_PLAIN: Final = {
    **dict.fromkeys(("job", "miner"), _UUID),
    **dict.fromkeys(("client", "lease", "input_commitment", "output_commitment"), _HASH),
    **dict.fromkeys(("unit_price", "max_units", "attempt"), _WHOLE),
    **dict.fromkeys(("kind", "unit"), _TEXT),
}


def heartbeat_values(
    *, miner: str, sequence: int, previous: bytes, telemetry: list[Any], running: list[str]
) -> dict[str, Any]:
    """The fields of `HEARTBEAT`; its struct hash is the `previous` of the next beat."""
    body = keccak(canonical({"running": running, "telemetry": telemetry}))
    return {"miner": uuid32(miner), "sequence": sequence, "previous": previous, "body": body}
