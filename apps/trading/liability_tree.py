"""Checks one user's place in a proof of liabilities. Needs nothing but Python.

A Merkle sum tree: a leaf is SHA-256 of "leaf:<salt>:<user>:<amount>", a node that of
"node:<left hash>:<left sum>:<right hash>:<right sum>", hashes in hex and sums in decimal. So a root with
its total commits every sum below it, and none of them can be negative.
"""

import hashlib
import re
from collections.abc import Mapping
from typing import Any, Final

_SUM: Final = re.compile(r"0|[1-9][0-9]{0,38}")
_HEX: Final = re.compile(r"[0-9a-f]{64}")
_USER: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def verify(document: Mapping[str, Any]) -> int:
    """What the tree owes the document's user, in smallest units; ValueError says what is wrong.

    Then compare its `root` and `total` with the published ones, and the amount with your own balance.
    """
    amount = total = _sum(document.get("amount"))
    salt, user = _match(_HEX, document.get("salt"), "salt"), _match(_USER, document.get("user"), "user")
    node = _sha256(f"leaf:{salt}:{user}:{amount}")
    for step in document.get("path", ()):
        sibling, other = _sum(step.get("sum")), _match(_HEX, step.get("hash"), "hash")
        pair = [f"{node}:{total}", f"{other}:{sibling}"]
        if step.get("side") not in ("left", "right"):
            raise ValueError("a sibling stands on the left or on the right")
        node = _sha256("node:" + ":".join(pair if step["side"] == "right" else reversed(pair)))
        total = _sum(str(total + sibling))
    if (f"0x{node}", total) != (document.get("root"), _sum(document.get("total"))):
        raise ValueError("it does not lead to this root and total")
    return amount


def _sum(value: object) -> int:
    number = int(_match(_SUM, value, "sum"))
    if number >= 2**127:
        raise ValueError("a sum overflows")
    return number


def _match(shape: re.Pattern[str], value: object, name: str) -> str:
    if not isinstance(value, str) or not shape.fullmatch(value):
        raise ValueError(f"malformed {name}: {value!r}")
    return value


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
