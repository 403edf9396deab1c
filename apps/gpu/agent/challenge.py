"""The hardware challenge: commit to every row of large products, then open the rows that a nonce picks.

Knowing the check beforehand makes it worthless: who knows Freivalds' r answers A(Br) in n**2 steps
without ever computing AB. Here the miner commits first (one Merkle root over the rows of C per step
and device), and only then learns which rows are looked at. The platform recomputes exactly those:
opening one is a Merkle proof alone, since the leaf is made from the row the platform computed. A
fraction f of false rows survives with probability (1 - f) ** rows.

The platform's clock, from sending the spec to receiving the roots, is the time. The claim is "this
compute was delivered by the deadline", not "this is that card".
"""

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from aitbc.chain import merkle
from aitbc.core.errors import Invalid
from apps.gpu.runtimes import matrices
from apps.gpu.runtimes.contract import Context

ROWS: Final = 64  # opened per device; 10 % of false rows survive with probability 0.0012
MAX_WORK: Final = 1 << 16  # steps x rounds
_SIZES: Final = {"cpu": (1024, 8), "cuda": (8192, 16), "rocm": (8192, 16)}
_LEAVES: Final = "leaves"

Place = tuple[int, int]  # (step, index of the row)


@dataclass(frozen=True)
class Spec:
    """The work of one challenge: of one device, under a seed of its own."""

    seed: bytes  # 32 bytes
    n: int
    rounds: int
    steps: int

    @property
    def operations(self) -> int:
        """Floating-point operations that one device has to do."""
        return 2 * self.n**3 * self.rounds * self.steps

    def as_json(self) -> dict[str, Any]:
        return asdict(self) | {"seed": self.seed.hex()}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "Spec":
        """Invalid "challenge.spec" for work beyond the limits or a malformed seed."""
        try:
            seed = bytes.fromhex(value["seed"])
            n, rounds, steps = (int(value[name]) for name in ("n", "rounds", "steps"))
        except (KeyError, TypeError, ValueError) as error:
            raise Invalid("challenge.spec", "not the spec of a challenge") from error
        sized = matrices.MIN_N <= n <= matrices.MAX_N and rounds > 0 and steps > 0
        if len(seed) != 32 or not sized or rounds * steps > MAX_WORK:
            raise Invalid("challenge.spec", "the challenge is outside its limits")
        return cls(seed, n, rounds, steps)


def plan(*, seed: bytes, kind: str, tflops: float, seconds: float) -> Spec:
    """The spec that a device of `kind` needs `seconds` for if it has the `tflops` it declares."""
    n, rounds = _SIZES[kind]
    steps = math.ceil(seconds * tflops * 1e12 / (2 * n**3 * rounds))
    return Spec(seed, n, rounds, min(max(steps, 1), MAX_WORK // rounds))


def places(nonce: bytes, spec: Spec, count: int = ROWS) -> list[Place]:
    """The rows that `nonce` picks out of all steps, uniformly and without repetition, in order."""
    total, picked, counter = spec.steps * spec.n, dict[int, None](), 0
    while len(picked) < min(count, total):
        block = hashlib.sha256(nonce + counter.to_bytes(8, "big")).digest()
        picked[int.from_bytes(block, "big") % total] = None  # 256 bits: the bias of % is nil
        counter += 1
    return [divmod(number, spec.n) for number in picked]


# -- the miner ---------------------------------------------------------------------------------
def commit(spec: Spec, context: Context) -> dict[str, list[str]]:
    """Does the work: `roots`, one per step. The leaves stay in the scratch folder for the opening."""
    multiplier = matrices.Multiplier(spec.seed, spec.n, device=context.device)
    roots = []
    with open(context.folder / _LEAVES, "wb") as file:
        for step in range(spec.steps):
            leaves = matrices.leaves(step, multiplier.product(step, spec.rounds))
            roots.append("0x" + merkle.root(leaves).hex())
            file.writelines(leaves)
    return {"roots": roots}


def open_rows(spec: Spec, wanted: Sequence[Sequence[int]], context: Context) -> list[dict[str, Any]]:
    """The Merkle proof of each place, from the leaves that `commit` kept in the same folder."""
    content = (context.folder / _LEAVES).read_bytes()
    leaves = [content[at : at + merkle.LEAF_SIZE] for at in range(0, len(content), merkle.LEAF_SIZE)]
    steps = {step for step, _ in wanted}
    trees = {step: merkle.Tree(leaves[step * spec.n : (step + 1) * spec.n]) for step in steps}
    return [
        {"step": step, "index": index, "proof": ["0x" + node.hex() for node in trees[step].proof(index)]}
        for step, index in wanted
    ]


# -- the platform ------------------------------------------------------------------------------
def verify_rows(
    spec: Spec, *, roots: Sequence[str], rows: Sequence[Mapping[str, Any]], wanted: Sequence[Place]
) -> str | None:
    """Why the opened `rows` do not show that `roots` commit to the true products; None if they do.

    `rows` are `open_rows`' answers for exactly the places `wanted`, in that order. Recomputes
    len(wanted) rows: 2 * n**2 * rounds operations each, no more than the miner's n-th part.
    """
    if [(row.get("step"), row.get("index")) for row in rows] != list(wanted):
        return "the opened rows are not the ones asked for"
    expected = matrices.product_rows(spec.seed, spec.n, spec.rounds, wanted)
    for (step, index), row, values in zip(wanted, rows, expected, strict=True):
        if not _is_committed(matrices.leaf(step, index, values), row.get("proof"), roots[step]):
            return f"row {index} of step {step} is not the row that was committed"
    return None


def _is_committed(leaf: bytes, proof: Any, root: str) -> bool:
    try:
        nodes = [bytes.fromhex(node.removeprefix("0x")) for node in proof]
        return merkle.verify(leaf, nodes, bytes.fromhex(root.removeprefix("0x")))
    except (TypeError, ValueError, AttributeError):  # a proof that is no list of hashes proves nothing
        return False
