"""What a device really does: floating-point speed by matrix products, memory bandwidth by copying."""

import time
from collections.abc import Callable
from typing import Any, Final

from apps.gpu.runtimes.matrices import Multiplier

# Size and rounds of one product: rounds enough that making its first matrix hardly counts.
_WORK: Final = {"cpu": (1024, 4), "cuda": (8192, 32), "rocm": (8192, 32)}
_COPY_BYTES: Final = {"cpu": 128 << 20, "cuda": 2 << 30, "rocm": 2 << 30}  # far larger than any cache
_SEED: Final = bytes(32)


def measure(device: str, *, seconds: float) -> dict[str, float]:
    """`tflops` (float32) and `memory_gbps` (bytes read plus written), each measured for about `seconds`.

    Both are sustained rates, so a machine that does other work at the time reports less.
    """
    (n, rounds), size = _WORK[device], _COPY_BYTES[device]
    multiplier = Multiplier(_SEED, n, device=device)
    products = _rate(lambda: multiplier.product(0, rounds), seconds)
    copies = _rate(_copier(device, size), seconds)
    return {"tflops": round(products * 2 * n**3 * rounds / 1e12, 4), "memory_gbps": round(copies * 2 * size / 1e9, 2)}


def _rate(work: Callable[[], Any], seconds: float) -> float:
    """Runs of `work` per second, after one run that warms caches and threads."""
    work()
    begun, runs = time.perf_counter(), 0
    while (elapsed := time.perf_counter() - begun) < seconds or not runs:
        work()
        runs += 1
    return runs / elapsed


def _copier(device: str, size: int) -> Callable[[], Any]:
    if device == "cpu":
        import numpy as np

        source, target = np.ones(size, np.uint8), np.empty(size, np.uint8)
        return lambda: np.copyto(target, source)
    import torch

    there = torch.ones(size, dtype=torch.uint8, device="cuda")
    copy = torch.empty_like(there)

    def run() -> None:
        copy.copy_(there)
        torch.cuda.synchronize()

    return run
