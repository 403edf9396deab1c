"""Integer matrices made from a seed, and products of them that every machine computes alike.

Entries are 4-bit integers in [-8, 7], so a dot product over n < 262,144 entries stays below 2**24:
float32 accumulation is exact, whatever the order of the sums, and float16, bfloat16 or TF32 inputs
lose nothing. One product is a chain of `rounds` multiplications C = X B, where X starts as the
step's matrix A and becomes the low four bits of C (minus 8): not linear, so powers of B are no
shortcut, and a row of C still depends on one row of A only, which is what makes single rows
checkable. Generator: SplitMix64 (Steele, Lea, Flood 2014) in counter mode under a SHA-256 key.
"""

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from aitbc.chain.signing import keccak

if TYPE_CHECKING:
    import numpy as np

MIN_N: Final = 8
MAX_N: Final = 16_384
_GOLDEN: Final = 0x9E3779B97F4A7C15
_PER_WORD: Final = 16  # entries in a 64-bit word


def entries(seed: bytes, label: str, rows: "Sequence[int] | np.ndarray", n: int) -> "np.ndarray":
    """Rows `rows` of the matrix `label` under `seed`: int8 of shape (len(rows), n)."""
    import numpy as np

    words = -(-n // _PER_WORD)
    key = int.from_bytes(hashlib.sha256(b"aitbc.matrix:" + label.encode() + b":" + seed).digest()[:8], "little")
    counter = np.asarray(rows, np.uint64)[:, None] * np.uint64(words) + np.arange(1, words + 1, dtype=np.uint64)
    mixed = (counter * np.uint64(_GOLDEN) + np.uint64(key)).astype("<u8", copy=False)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        mixed ^= mixed >> np.uint64(shift)
        mixed *= np.uint64(factor)
    mixed ^= mixed >> np.uint64(31)
    packed = mixed.view(np.uint8)
    out = np.empty((packed.shape[0], packed.shape[1] * 2), np.int8)
    out[:, 0::2] = packed & 15
    out[:, 1::2] = packed >> 4
    out -= 8
    rows_wanted: np.ndarray = out[:, :n]
    return rows_wanted


def left(seed: bytes, step: int, rows: "Sequence[int] | np.ndarray", n: int) -> "np.ndarray":
    return entries(seed, f"A{step}", rows, n)


def right(seed: bytes, n: int) -> "np.ndarray":
    """B, the same in every step of a seed."""
    return entries(seed, "B", range(n), n)


def product_rows(seed: bytes, n: int, rounds: int, wanted: Sequence[tuple[int, int]]) -> "np.ndarray":
    """The rows `(step, index)` of the products, int32 of shape (len(wanted), n), on the CPU."""
    import numpy as np

    start = np.concatenate([left(seed, step, [index], n) for step, index in wanted])
    return Multiplier(seed, n).chain(start, rounds)


class Multiplier:
    """Whole products of one seed on one device: B is made and placed once.

    On a CPU the products are computed in float32 for every dtype, which gives the same integers.
    """

    def __init__(self, seed: bytes, n: int, *, device: str = "cpu", dtype: str = "float32") -> None:
        import numpy as np

        self.seed, self.n, self.device = seed, n, device
        plain = right(seed, n)
        if device == "cpu":
            self._b: Any = plain.astype(np.float32)
        else:
            import torch  # a ROCm build calls its devices cuda too

            self._b = torch.from_numpy(plain).to("cuda", getattr(torch, dtype))

    def product(self, step: int, rounds: int = 1) -> "np.ndarray":
        """C of `step`: int32 of shape (n, n). Counts 2 * n**3 * rounds floating-point operations."""
        return self.chain(left(self.seed, step, range(self.n), self.n), rounds)

    def chain(self, start: "np.ndarray", rounds: int) -> "np.ndarray":
        """The products of some rows of X, int32."""
        times_b = self._times_b if self.device == "cpu" else self._times_b_there
        product = times_b(start)
        for _ in range(rounds - 1):
            product = times_b((product & 15) - 8)
        result: np.ndarray = product if self.device == "cpu" else product.cpu().numpy()
        return result

    def _times_b(self, x: "np.ndarray") -> Any:
        return (x.astype("float32") @ self._b).astype("int32")

    def _times_b_there(self, x: Any) -> Any:
        import torch

        x = torch.as_tensor(x).to(self._b.device, self._b.dtype)
        half = self._b.dtype != torch.float32
        product = torch.mm(x, self._b, out_dtype=torch.float32) if half else torch.mm(x, self._b)
        return product.to(torch.int32)


def leaf(step: int, index: int, row: "np.ndarray") -> bytes:
    """Merkle leaf of one row: keccak(step || index || SHA-256 of the int32 little-endian row).

    The place is part of the leaf, because a tree with sorted pairs does not tell where a leaf sits.
    """
    content = hashlib.sha256(row.astype("<i4", copy=False).tobytes()).digest()
    return keccak(step.to_bytes(4, "big") + index.to_bytes(4, "big") + content)


def leaves(step: int, product: "np.ndarray") -> list[bytes]:
    return [leaf(step, index, row) for index, row in enumerate(product)]
