"""The demonstration's jobs, and how a client who has done the same work himself checks their outputs."""

import base64
import hashlib
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

from aitbc.chain import merkle
from aitbc.core.ids import uuid7
from apps.gpu import demo, statements
from apps.gpu.runtimes import matrices
from apps.gpu.runtimes.bench_matmul import seed_bytes

JSON = dict[str, Any]
# Lines that the recognition model reads without a mistake in the pictures made here.
SENTENCES: Final = (
    ("Invoice 2718", "Amount due 42"),
    ("Open market for compute",),
    ("Warning: high voltage", "Keep out"),
    ("Platform 9", "Departure 18:45"),
    ("Gate closes at noon",),
    ("Receipt number 60221",),
    ("Made of real parts", "Checked by hand"),
    ("Bread 3.20", "Milk 1.15", "Sum 4.35"),
    ("Ticket 1729", "Row 12 Seat 34"),
    ("Measure twice", "cut once"),
    ("Chapter 10", "The Harbour"),
    ("No miner gets a job twice",),
)


@dataclass(frozen=True)
class Order:
    """A job to submit; `check(output)` says what is wrong with its output, None if nothing is."""

    kind: str
    input: JSON
    check: Callable[[Any], str | None]
    region: str
    artifacts: tuple[bytes, ...] = ()
    max_price: str = "0.5"
    id: str = field(default_factory=lambda: str(uuid7()))

    @property
    def body(self) -> JSON:
        return {
            "id": self.id,
            "kind": self.kind,
            "input": self.input,
            "constraints": {"region": self.region},
            "max_price": {"amount": self.max_price, "asset": "AIT"},
        }


def mixed(count: int, *, region: str) -> list[Order]:
    """`count` jobs of each of the three kinds, in turn."""
    trios = ((matmul(region=region), onnx(region=region), ocr(i, region=region)) for i in range(count))
    return [order for trio in trios for order in trio]


def matmul(*, region: str, n: int = 256, repeats: int = 1, max_price: str = "0.5") -> Order:
    given = {"n": n, "seed": random.getrandbits(48), "dtype": "float32", "repeats": repeats}
    return Order("bench.matmul", given, lambda output: check_matmul(given, output), region, max_price=max_price)


def check_matmul(given: JSON, output: JSON) -> str | None:
    """Multiply the same matrices here, in double precision, and compare the Merkle root of all rows."""
    n, seed = given["n"], seed_bytes(given["seed"])
    a, b = matrices.left(seed, 0, range(n), n), matrices.right(seed, n)
    product = (a.astype(np.float64) @ b.astype(np.float64)).astype(np.int32)
    root = "0x" + merkle.root(matrices.leaves(0, product)).hex()
    if output["root"] == root:
        return None
    return f"the product's rows have the root {root}, not {output['root']}"


def onnx(*, region: str) -> Order:
    """The shipped perceptron on random inputs."""
    model = demo.MODEL_PATH.read_bytes()
    x = np.random.default_rng().uniform(-1, 1, (4, demo.INPUTS)).astype(np.float32)
    tensor = {"dtype": "float32", "shape": list(x.shape), "data": [float(value) for value in x.ravel()]}
    given = {"model": hashlib.sha256(model).hexdigest(), "inputs": {"x": tensor}}
    return Order("onnx.infer", given, lambda output: check_onnx(x, output), region, (model,))


def check_onnx(x: "np.ndarray", output: JSON) -> str | None:
    """Compare with the same network written in NumPy, in double precision."""
    found = output["outputs"]["probabilities"]
    expected = demo.mlp_reference(x.astype(np.float64))
    if found["shape"] != list(expected.shape):
        return f"the output has the shape {found['shape']}, not {list(expected.shape)}"
    worst = float(np.abs(np.array(found["data"]).reshape(expected.shape) - expected).max())
    return None if worst < 1e-5 else f"the output is {worst:.2g} away from NumPy's"


def ocr(number: int, *, region: str) -> Order:
    """A picture rendered here; every second one travels as an artifact, the others inside the input."""
    lines = SENTENCES[number % len(SENTENCES)]
    picture = demo.picture(*lines)
    artifacts = (picture,) if number % 2 else ()
    image = hashlib.sha256(picture).hexdigest() if artifacts else base64.b64encode(picture).decode()
    return Order("vision.ocr", {"image": image}, lambda output: check_ocr(lines, output), region, artifacts)


def check_ocr(lines: tuple[str, ...], output: JSON) -> str | None:
    found = tuple(line["text"] for line in output["lines"])
    return None if found == lines else f"the picture says {lines}, the output {found}"


def check_commitments(receipt: JSON, *, given: Any, output: Any) -> str | None:
    """Does the receipt commit to this very input and output?"""
    salt = statements.hex32(receipt["salt"])
    for name, value in (("input_commitment", given), ("output_commitment", output)):
        if receipt["statement"][name] != "0x" + statements.commitment(salt=salt, value=value).hex():
            return f"{name} of the receipt of {receipt['statement']['job']} is of something else"
    return None
