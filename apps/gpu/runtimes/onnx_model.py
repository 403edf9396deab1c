"""Reads the structure of an ONNX file without building it, to refuse what a stranger's model may not hold.

A walk over the protobuf wire format (protobuf.dev, "Encoding") along the fields of onnx.proto that
carry nodes, tensors and nested graphs. Unlike a parser it sees every occurrence of a field, so a
repeated one cannot hide behind another that a parser would keep. Weights are skipped, not copied.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from apps.gpu.runtimes.contract import invalid_model

MAX_BYTES: Final = 512 << 20
MAX_NODES: Final = 20_000
MAX_DEPTH: Final = 8
MAX_TENSOR_ELEMENTS: Final = 1 << 28
STANDARD_DOMAINS: Final = frozenset({"", "ai.onnx", "ai.onnx.ml"})

# Field numbers of onnx.proto: which lead to further messages of interest, and of what type.
_MESSAGES: Final[dict[str, dict[int, str]]] = {
    "Model": {7: "Graph", 8: "OperatorSet", 20: "Training", 25: "Function"},
    "Graph": {1: "Node", 5: "Tensor", 15: "SparseTensor"},
    "Function": {7: "Node", 9: "OperatorSet", 11: "Attribute"},
    "Node": {5: "Attribute"},
    "Attribute": {5: "Tensor", 6: "Graph", 10: "Tensor", 11: "Graph", 22: "SparseTensor", 23: "SparseTensor"},
    "SparseTensor": {1: "Tensor", 2: "Tensor"},
}
_DOMAIN: Final = {"Node": 7, "OperatorSet": 1}
_TENSOR_DIMS, _TENSOR_EXTERNAL, _TENSOR_LOCATION = 1, 13, 14


@dataclass
class Structure:
    """What the walk counted."""

    graphs: int = 0
    nodes: int = 0


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(data):
            break
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise invalid_model("the file is not an ONNX model: a number runs past its end")


def _fields(data: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """(field number, number or bytes) of one message; groups and other wire types are refused."""
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        number, wire = tag >> 3, tag & 7
        value: int | memoryview
        if wire == 0:
            value, at = _varint(data, at)
        else:
            if wire not in (1, 2, 5):
                raise invalid_model("the file is not an ONNX model: unknown wire type")
            length, at = (8, at) if wire == 1 else (4, at) if wire == 5 else _varint(data, at)
            value, at = data[at : at + length], at + length
            if at > len(data):
                raise invalid_model("the file is not an ONNX model: a field runs past its end")
        yield number, value


def _packed(value: int | memoryview) -> Iterator[int]:
    if isinstance(value, int):
        yield value
        return
    at = 0
    while at < len(value):
        item, at = _varint(value, at)
        yield item


def _check_tensor(data: memoryview) -> None:
    elements = 1
    for number, value in _fields(data):
        if number == _TENSOR_EXTERNAL or (number == _TENSOR_LOCATION and value != 0):
            raise invalid_model("the model refers to external data; weights must be inside the file")
        if number == _TENSOR_DIMS:
            for size in _packed(value):
                elements *= size
                if elements > MAX_TENSOR_ELEMENTS:
                    raise invalid_model(f"a tensor of the model has more than {MAX_TENSOR_ELEMENTS} elements")


def _walk(kind: str, data: memoryview, depth: int, found: Structure) -> None:
    if kind == "Training":
        raise invalid_model("models with training information are not accepted")
    if kind == "Graph":
        found.graphs, depth = found.graphs + 1, depth + 1
    if depth > MAX_DEPTH:
        raise invalid_model(f"graphs are nested more than {MAX_DEPTH} deep")
    if kind == "Node":
        found.nodes += 1
        if found.nodes > MAX_NODES:
            raise invalid_model(f"the model has more than {MAX_NODES} nodes")
    if kind == "Tensor":
        _check_tensor(data)
        return
    for number, value in _fields(data):
        if number == _DOMAIN.get(kind):
            _check_domain(value)
        inner = _MESSAGES.get(kind, {}).get(number)
        if inner is not None:
            if isinstance(value, int):
                raise invalid_model("the file is not an ONNX model: a message is missing")
            _walk(inner, value, depth, found)


def _check_domain(value: int | memoryview) -> None:
    domain = bytes(value).decode(errors="replace") if isinstance(value, memoryview) else str(value)
    if domain not in STANDARD_DOMAINS:
        raise invalid_model(f"operators of the domain {domain[:64]!r} are not accepted, only those of ONNX itself")


def inspect(path: Path) -> Structure:
    """Structure of the model file; RuntimeFailure "runtime.invalid_model" for what is not allowed."""
    if path.stat().st_size > MAX_BYTES:
        raise invalid_model(f"the model is larger than {MAX_BYTES >> 20} MiB")
    found = Structure()
    _walk("Model", memoryview(path.read_bytes()), 0, found)
    if found.graphs == 0 or found.nodes == 0:
        raise invalid_model("the file is not an ONNX model: it has no graph with nodes")
    return found
