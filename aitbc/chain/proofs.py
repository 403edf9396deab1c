"""What a block's header proves of its logs, so that an answer that was cut short is never taken for whole.

Sources: Ethereum Yellow Paper, appendices C (hex prefix), D (Merkle Patricia tree) and 4.3.1 (log bloom);
EIP-2718 (typed receipts); the OP stack (deposit receipts have two more fields since its Canyon upgrade).
"""

from collections.abc import Mapping, Sequence
from typing import Any

from rlp.codec import encode_raw  # type: ignore[import-untyped]
from rlp.sedes import big_endian_int  # type: ignore[import-untyped]

from aitbc.chain.signing import keccak

_number = big_endian_int.serialize


def bloom_bits(item: bytes) -> int:
    """The three bits that `item` (an address or a topic) sets in a block's log bloom."""
    digest = keccak(item)
    return sum({1 << (int.from_bytes(digest[i : i + 2], "big") & 2047) for i in (0, 2, 4)})


def receipts_root(receipts: Sequence[Mapping[str, Any]]) -> str:
    """`receiptsRoot` of a block with exactly these receipts, as JSON-RPC shows them, in their order."""
    leaves = sorted((encode_raw(_number(i)).hex(), _receipt(item)) for i, item in enumerate(receipts))
    return "0x" + keccak(encode_raw(_node(leaves, 0)) if leaves else b"\x80").hex()


def unhex(text: str) -> bytes:
    return bytes.fromhex(text[2:])


def _receipt(raw: Mapping[str, Any]) -> bytes:
    logs = [[unhex(e["address"]), [unhex(t) for t in e["topics"]], unhex(e["data"])] for e in raw["logs"]]
    names = ("depositNonce", "depositReceiptVersion") if raw.get("depositReceiptVersion") else ()
    numbers = [_number(int(raw[name], 16)) for name in ("status", "cumulativeGasUsed", *names)]
    body = encode_raw([*numbers[:2], unhex(raw["logsBloom"]), logs, *numbers[2:]])
    return bytes(_number(int(raw.get("type") or "0x0", 16)) + body)


def _prefixed(path: str, flag: int) -> bytes:
    return bytes.fromhex((f"{flag + 1}" if len(path) % 2 else f"{flag}0") + path)


def _node(leaves: list[tuple[str, bytes]], depth: int) -> list[Any]:
    """The tree over sorted leaves (hex path, content) that agree in their first `depth` digits."""
    first, last = leaves[0][0], leaves[-1][0]
    if len(leaves) == 1:
        return [_prefixed(first[depth:], 2), leaves[0][1]]
    split = next(i for i in range(depth, len(last)) if first[i] != last[i])
    if split > depth:
        return [_prefixed(first[depth:split], 0), _reference(leaves, split)]
    parts = [[leaf for leaf in leaves if leaf[0][depth] == digit] for digit in "0123456789abcdef"]
    return [*(_reference(part, depth + 1) if part else b"" for part in parts), b""]


def _reference(leaves: list[tuple[str, bytes]], depth: int) -> Any:
    node = _node(leaves, depth)
    encoded = encode_raw(node)
    return node if len(encoded) < 32 else keccak(encoded)
