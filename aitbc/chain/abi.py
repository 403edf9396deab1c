"""Compiled contracts as data: calls, results, events and errors through eth_abi, no node needed."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

import eth_abi
from django.conf import settings

from aitbc.chain.signing import checksum_address, keccak, parse_address

_PANIC: Final = bytes.fromhex("4e487b71")
_ERROR: Final = bytes.fromhex("08c379a0")


@dataclass(frozen=True)
class Signature:
    """One ABI entry: a function, an event or an error."""

    name: str
    inputs: tuple[Mapping[str, Any], ...]
    outputs: tuple[Mapping[str, Any], ...]

    @property
    def types(self) -> list[str]:
        return [_type(item) for item in self.inputs]

    @property
    def hash(self) -> bytes:
        return keccak(f"{self.name}({','.join(self.types)})".encode())


def _type(item: Mapping[str, Any]) -> str:
    """The canonical type; a struct is the tuple of its components' types."""
    inner = ",".join(_type(each) for each in item.get("components", ()))
    return str(item["type"]).replace("tuple", f"({inner})")


def _native(kind: str, value: Any) -> Any:
    """JSON value -> what eth_abi encodes: amounts travel as decimal strings, bytes as hex. A struct is a
    list of its components, none of which is a struct."""
    if kind.endswith("[]"):
        return [_native(kind[:-2], item) for item in value]
    if kind.startswith("("):
        return [_native(*each) for each in zip(kind[1:-1].split(","), value, strict=True)]
    if kind == "address":
        return parse_address(value)
    if kind.startswith("bytes") and isinstance(value, str):
        return bytes.fromhex(value.removeprefix("0x"))
    return int(value) if kind.startswith("uint") else value


def plain(kind: str, value: Any) -> Any:
    """What eth_abi decoded -> JSON value; the inverse of `_native`."""
    if kind.endswith("[]"):
        return [plain(kind[:-2], item) for item in value]
    if kind == "address":
        return checksum_address(parse_address(value))
    if kind.startswith("bytes"):
        return "0x" + value.hex()
    return str(value) if kind.startswith("uint") else value


# One word each: what our events consist of, four times as fast as eth_abi, which reads the rest.
_WORDS: Final[dict[str, Callable[[bytes], str]]] = {
    "address": lambda word: checksum_address(word[12:]),
    "uint256": lambda word: str(int.from_bytes(word)),
    "bytes32": lambda word: "0x" + word.hex(),
}


def _decoded(kinds: Sequence[str], raw: bytes) -> list[Any]:
    """JSON values of these types."""
    if len(raw) == 32 * len(kinds) and all(kind in _WORDS for kind in kinds):
        return [_WORDS[kind](raw[32 * nth : 32 * nth + 32]) for nth, kind in enumerate(kinds)]
    return [plain(kind, value) for kind, value in zip(kinds, eth_abi.decode(kinds, raw), strict=True)]


class Interface:
    """A contract's ABI and creation code, from `contracts/build/<name>.json`."""

    def __init__(self, name: str, artifact: Mapping[str, Any]) -> None:
        self.name = name
        self.bytecode: str = artifact["bytecode"]
        self.entries: Sequence[Mapping[str, Any]] = artifact["abi"]
        self.functions = {s.name: s for s in self._all("function")}
        self.events = {s.hash: s for s in self._all("event")}
        self.errors = {s.hash[:4]: s for s in self._all("error")}
        self.constructor = next(iter(self._all("constructor")), Signature("", (), ()))

    def _all(self, kind: str) -> list[Signature]:
        return [
            Signature(e.get("name", ""), tuple(e.get("inputs", ())), tuple(e.get("outputs", ())))
            for e in self.entries
            if e["type"] == kind
        ]

    def creation(self, *args: Any) -> str:
        """Creation code with its constructor arguments, 0x hex."""
        types = self.constructor.types
        values = [_native(kind, value) for kind, value in zip(types, args, strict=True)]
        return self.bytecode + eth_abi.encode(types, values).hex()

    def call_data(self, function: str, args: Sequence[Any]) -> str:
        signature = self.functions[function]
        values = [_native(kind, value) for kind, value in zip(signature.types, args, strict=True)]
        return "0x" + (signature.hash[:4] + eth_abi.encode(signature.types, values)).hex()

    def result(self, function: str, data: str) -> tuple[Any, ...]:
        types = [item["type"] for item in self.functions[function].outputs]
        return eth_abi.decode(types, bytes.fromhex(data[2:]))

    def decode_log(self, topics: Sequence[str], data: str) -> tuple[str, dict[str, Any]] | None:
        """(event name, arguments as JSON values); None for an event that the ABI does not know."""
        signature = self.events.get(bytes.fromhex(topics[0][2:])) if topics else None
        if signature is None:
            return None
        values: dict[str, Any] = {}
        for indexed, raw in ((True, "".join(topic[2:] for topic in topics[1:])), (False, data[2:])):
            inputs = [item for item in signature.inputs if item["indexed"] is indexed]
            found = _decoded([item["type"] for item in inputs], bytes.fromhex(raw))
            values |= {item["name"]: value for item, value in zip(inputs, found, strict=True)}
        return signature.name, values


@cache
def interface(name: str) -> Interface:
    path = Path(settings.BASE_DIR) / "contracts" / "build" / f"{name}.json"
    return Interface(name, json.loads(path.read_text()))


def revert_reason(data: str | None) -> str:
    """Name of the custom error, text of a `require`, or the raw selector; "" without data."""
    raw = bytes.fromhex((data or "0x")[2:])
    if raw[:4] == _ERROR:
        return str(eth_abi.decode(["string"], raw[4:])[0])
    if raw[:4] == _PANIC:
        return f"Panic({eth_abi.decode(['uint256'], raw[4:])[0]})"
    for name in ("Settlement", "AIT"):
        if raw[:4] in interface(name).errors:
            return interface(name).errors[raw[:4]].name
    return raw[:4].hex()
