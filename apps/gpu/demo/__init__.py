"""Real inputs for demonstrations and self-tests: a small ONNX model, its reference, pictures with text, a voice.

`mlp.onnx` is a perceptron 16-32-8 with softmax, made by `make_model.py`; its weights come from the
generator of `bench.matmul`, so anyone recomputes its outputs with NumPy alone (`mlp_reference`).
"""

import io
from pathlib import Path
from typing import TYPE_CHECKING, Final

from apps.gpu.runtimes.matrices import entries

if TYPE_CHECKING:
    import numpy as np

MODEL_PATH: Final = Path(__file__).parent / "mlp.onnx"
VOICE_PATH: Final = MODEL_PATH.with_name("voice.wav")  # synthetic, speaks from 1 s to 2 s of its 3 s
VOICE_SHA256: Final = "18178542e054232bd6c48f289859b2933ba351e6a3e38c642e16c7a153906517"
INPUTS, HIDDEN, OUTPUTS = 16, 32, 8
_SEED: Final = b"aitbc demo model"


def weights() -> "dict[str, np.ndarray]":
    """float32 in [-1, 0.875], of shapes (16, 32), (32,), (32, 8), (8,)."""
    import numpy as np

    shapes = {"w1": (INPUTS, HIDDEN), "b1": (1, HIDDEN), "w2": (HIDDEN, OUTPUTS), "b2": (1, OUTPUTS)}
    made = {
        name: entries(_SEED, name, range(rows), columns).astype(np.float32) / 8
        for name, (rows, columns) in shapes.items()
    }
    return made | {"b1": made["b1"][0], "b2": made["b2"][0]}


def mlp_reference(x: "np.ndarray") -> "np.ndarray":
    """What `mlp.onnx` gives for `x` of shape (batch, 16): class probabilities of shape (batch, 8)."""
    import numpy as np

    w = {name: value.astype(np.float64) for name, value in weights().items()}
    logits = np.maximum(x @ w["w1"] + w["b1"], 0) @ w["w2"] + w["b2"]
    raised = np.exp(logits - logits.max(axis=1, keepdims=True))
    result: np.ndarray = raised / raised.sum(axis=1, keepdims=True)
    return result


def picture(*lines: str, size: int = 36) -> bytes:
    """PNG with `lines` in black on white, in Pillow's own scalable font at `size` pixels."""
    from PIL import Image, ImageDraw, ImageFont

    font = ImageFont.load_default(size=size)
    width = max(int(font.getlength(line)) for line in lines) + 2 * size
    image = Image.new("RGB", (width, (2 * len(lines) + 1) * size), "white")
    draw = ImageDraw.Draw(image)
    for number, line in enumerate(lines):
        draw.text((size, (2 * number + 0.75) * size), line, fill="black", font=font)
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()
