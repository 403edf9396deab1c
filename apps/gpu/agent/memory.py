"""Proof of memory (protocols 20): fill it with rows that depend on each other, then read all of it many times.

A row of block b is made from a row of block b - 1 and one of a block that the seed picks, so the memory fills in order.
The miner commits to all rows; only then a nonce makes the vector x. Each step multiplies the whole memory by x, modulo
2**64, and the root over the products makes the next x. What is not kept must be made again in each step, which takes
longer than the deadline allows (docs/hardware.md). At the end the platform draws rows and products, and checks them.
"""

import base64
import hashlib
import math
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from aitbc.chain import merkle
from apps.gpu.agent.challenge import Place, Spec, places
from apps.gpu.runtimes.contract import Context

WORDS: Final = 4096  # of 64 bits in a row: 32 KiB
SAMPLES: Final = 8  # rows opened, each with the two that it is made from
_GROUP: Final = {"cpu": 16, "cuda": 2048, "rocm": 2048}  # rows of a block
_MOST_MB: Final = {"cpu": 64, "cuda": 1 << 20, "rocm": 1 << 20}


def plan(*, seed: bytes, kind: str, memory_mb: int, gbps: float, seconds: float) -> Spec:
    """`n` rows in blocks of `rounds`: 85 % of the memory. `steps` take `seconds` at the bandwidth that is declared."""
    block = 8 * WORDS * _GROUP[kind]
    blocks = max(2, int(min(memory_mb * 0.85, _MOST_MB[kind]) * 2**20 / block))
    steps = math.ceil(seconds * gbps * 1e9 / (block * blocks))
    return Spec(seed, blocks * _GROUP[kind], _GROUP[kind], min(max(steps, 4), 4096))


def traffic(spec: Spec) -> int:
    """Bytes that the steps read."""
    return 8 * WORDS * spec.n * spec.steps


def _mix(a: Any, b: Any, number: int) -> Any:
    """Passes over int64 arrays of NumPy or torch, which wrap alike: several times the work of reading them."""
    for odd in (0x1E3779B97F4A7C15, 0x3F58476D1CE4E5B9, 0x14D049BB133111EB, 0x2545F4914F6CDD1D):
        a = (a ^ (a >> 29)) * odd + b + number
    return a


def _vector(key: bytes, first: int = 0, count: int = 1) -> Any:
    import numpy as np

    numbers = np.arange(first * WORDS, (first + count) * WORDS, dtype=np.int64)
    return _mix(numbers, numbers, _draw(key, 0)).reshape(count, WORDS)


def _draw(key: bytes, number: int) -> int:
    return int.from_bytes(hashlib.sha256(key + number.to_bytes(8, "big")).digest()[:8], "big") >> 2


def _needed(spec: Spec, index: int) -> list[int]:
    """The row itself and the two that it is made from; those of the first block come from the seed alone."""
    block, place = divmod(index, spec.rounds)
    turned = ((block - 1, 1), (_draw(spec.seed, 2 * block) % block, _draw(spec.seed, 2 * block + 1))) if block else ()
    return [index, *(other * spec.rounds + (place + turn) % spec.rounds for other, turn in turned)]


def _leaf(index: int, values: Any) -> bytes:
    return hashlib.sha256(index.to_bytes(8, "big") + values.astype("<i8", copy=False).tobytes()).digest()


# -- the miner ---------------------------------------------------------------------------------
def _fill(spec: Spec, device: str) -> Any:
    import numpy as np

    rows: Any = _vector(spec.seed, 0, spec.rounds)
    memory: Any = np.empty((spec.n, WORDS), np.int64) if device == "cpu" else None
    if memory is None:
        import torch

        memory, rows = torch.empty((spec.n, WORDS), dtype=torch.int64, device="cuda"), torch.from_numpy(rows)
    memory[: spec.rounds] = rows
    for first in range(spec.rounds, spec.n, spec.rounds):
        made = [_needed(spec, index) for index in range(first, first + spec.rounds)]
        _, before, other = (list(column) for column in zip(*made, strict=True))
        memory[first : first + spec.rounds] = _mix(memory[before], memory[other], first // spec.rounds)
    return memory


def _host(values: Any) -> Any:
    return values if hasattr(values, "tobytes") else values.cpu().numpy()


def _products(memory: Any, key: bytes, group: int) -> Any:
    """Of every row with the vector of `key`, by blocks."""
    x = _vector(key)[0]
    if hasattr(memory, "tobytes"):
        return (memory @ x).reshape(-1, group)
    there = memory.new_tensor(x)
    return [_host((block * there).sum(1)) for block in memory.split(group)]


def prove(spec: Spec, context: Context) -> list[dict[str, Any]]:
    """Fills, says the root, hears the nonce, reads, says the roots, hears what to open, and opens it."""
    memory = _fill(spec, context.device)
    rows = merkle.Tree([_leaf(index, _host(row)) for index, row in enumerate(memory)])
    key, products, trees = _exchange(context.folder, "fill", [rows.root]), [], []
    for _ in range(spec.steps):
        products.append(_products(memory, key, spec.rounds))
        trees.append(merkle.Tree([_leaf(number, block) for number, block in enumerate(products[-1])]))
        key = trees[-1].root
    opened = []
    for step, index in places(_exchange(context.folder, "walk", [tree.root for tree in trees]), spec, SAMPLES):
        block = index // spec.rounds
        shown = [
            (base64.b64encode(_host(memory[at]).tobytes()).decode(), _hex(rows, at)) for at in _needed(spec, index)
        ]
        facts = {"products": products[step][block].tolist(), "proof": _hex(trees[step], block)}
        opened.append({"step": step, "index": index, "rows": shown} | facts)
    return opened


def _hex(tree: merkle.Tree, index: int) -> list[str]:
    return ["0x" + node.hex() for node in tree.proof(index)]


def _exchange(folder: Path, said: str, roots: list[bytes]) -> bytes:
    """Leave `roots` in the folder for the miner, who sends them and leaves the platform's nonce."""
    (folder / "part").write_text(",".join("0x" + root.hex() for root in roots))
    os.replace(folder / "part", folder / said)
    while not (heard := folder / f"{said}.nonce").exists():
        time.sleep(0.002)  # the sandbox ends who waits too long
    return bytes.fromhex(heard.read_text()[2:])


# -- the platform ------------------------------------------------------------------------------
def verify(spec: Spec, *, keys: Sequence[str], draw: str, rows: Sequence[Any]) -> str | None:
    """Why the opened rows do not show a memory that was filled and read as asked; None if they do. `keys` are the
    root of the memory, the nonce, and the roots of the steps."""
    wanted = places(bytes.fromhex(draw[2:]), spec, SAMPLES)
    try:
        if [(row["step"], row["index"]) for row in rows] != wanted:
            return "the opened rows are not the ones asked for"
        faults = (_fault(spec, keys, place, opened) for place, opened in zip(wanted, rows, strict=True))
        return next((fault for fault in faults if fault), None)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, OverflowError):
        return "the opened rows are malformed"


def _fault(spec: Spec, keys: Sequence[str], place: Place, opened: Any) -> str | None:
    import numpy as np

    (step, index), needed = place, _needed(spec, place[1])
    found = [np.frombuffer(base64.b64decode(row, validate=True), "<i8") for row, _ in opened["rows"]]
    shown = zip(needed, found, opened["rows"], strict=True)
    if not all(len(row) == WORDS and _under(keys[0], _leaf(at, row), proof) for at, row, (_, proof) in shown):
        return f"row {index} of the memory is not the row that was committed"
    made = _mix(found[1], found[2], index // spec.rounds) if found[1:] else _vector(spec.seed, index)[0]
    if not np.array_equal(made, found[0]):
        return f"row {index} of the memory does not follow from the rows before it"
    products = np.array(opened["products"], np.int64)
    product = found[0] @ _vector(bytes.fromhex(keys[step + 1][2:]))[0]
    under = _under(keys[step + 2], _leaf(index // spec.rounds, products), opened["proof"])
    return None if under and products[index % spec.rounds] == product else f"step {step} did not read row {index}"


def _under(root: str, leaf: bytes, proof: Sequence[str]) -> bool:
    return merkle.verify(leaf, [bytes.fromhex(node[2:]) for node in proof], bytes.fromhex(root[2:]))
