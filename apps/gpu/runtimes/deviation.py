"""How far two outputs of one job lie apart."""

import math
from typing import Any


def numeric(a: Any, b: Any) -> float:
    """The largest |a - b| / max(1, |a|, |b|) over the numbers of two JSON values; infinite where they differ
    in anything else: shape, keys, words, truth values."""
    if isinstance(a, dict) and isinstance(b, dict) and a.keys() == b.keys():
        return max((numeric(a[name], b[name]) for name in a), default=0.0)
    if isinstance(a, list) and isinstance(b, list) and len(a) == len(b):
        return max(map(numeric, a, b), default=0.0)
    if type(a) in (int, float) and type(b) in (int, float):
        return float(abs(a - b) / max(1, abs(a), abs(b)))
    return 0.0 if type(a) is type(b) and a == b else math.inf
