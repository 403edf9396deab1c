"""`bench.matmul`: multiply integer matrices made from a seed, and measure how long it took.

Also the work of the hardware challenge (`apps.gpu.agent.challenge`). NumPy on a CPU, torch on CUDA.
"""

import time
from typing import Any, Final

from aitbc.chain import merkle
from apps.gpu.runtimes import deviation, matrices
from apps.gpu.runtimes.contract import Context, Runtime, missing_packages


def seed_bytes(seed: int) -> bytes:
    """How a job's whole-number seed enters the generator: 32 bytes, big-endian."""
    return seed.to_bytes(32, "big")


def run(job: Any, context: Context) -> tuple[Any, dict[str, Any]]:
    """`seconds` covers the multiplications of all repeats, `root` the rows of C."""
    n, repeats = job["n"], job.get("repeats", 1)
    multiplier = matrices.Multiplier(seed_bytes(job["seed"]), n, device=context.device, dtype=job["dtype"])
    begun = time.perf_counter()
    for _ in range(repeats):
        product = multiplier.product(0)
    seconds = time.perf_counter() - begun
    tflops = 2 * n**3 * repeats / seconds / 1e12
    root = "0x" + merkle.root(matrices.leaves(0, product)).hex()
    output = {"n": n, "seconds": seconds, "tflops": tflops, "root": root}
    return output, {"computed_in": "float32" if context.device == "cpu" else job["dtype"]}


def available(device: str) -> str | None:
    return missing_packages("numpy") if device == "cpu" else missing_packages("numpy", "torch")


RUNTIME: Final = Runtime(
    kind="bench.matmul", run=run, available=available, preload=("numpy",),
    # The product is exact on every machine, how long it took is not.
    deviation=lambda a, b: deviation.numeric([a.get("n"), a.get("root")], [b.get("n"), b.get("root")]),
)  # fmt: skip
