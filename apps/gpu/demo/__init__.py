"""Real inputs for demonstrations and self-tests: a small ONNX model, its reference, pictures with text, a voice.

`mlp.onnx` is a perceptron 16-32-8 with softmax, made by `make_model.py`; its weights come from the
generator of `bench.matmul`, so anyone recomputes its outputs with NumPy alone (`mlp_reference`).
"""

import io
import wave
from pathlib import Path
from typing import TYPE_CHECKING, Final

from apps.gpu.runtimes.matrices import entries

if TYPE_CHECKING:
    import numpy as np

MODEL_PATH: Final = Path(__file__).parent / "mlp.onnx"
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


# First three formants in Hz of four vowels (Peterson and Barney 1952, men): father, heed, who, head.
_VOWELS: Final = ((730, 1090, 2440), (270, 2290, 3010), (300, 870, 2240), (530, 1840, 2480))


def voice(*, rate: int = 16_000, spoken: tuple[tuple[float, float], ...] = ((1, 3),), seconds: float = 4) -> bytes:
    """WAV, mono, 16 bits: silence of `seconds` in which a synthetic voice speaks vowels in the spans `spoken`."""
    import numpy as np

    t = np.arange(round(rate * seconds)) / rate
    pitch = 120 * (1 + 0.03 * np.sin(10 * np.pi * t) + 0.15 * np.sin(1.4 * np.pi * t))
    phase = 2 * np.pi * np.cumsum(pitch) / rate
    vowels = np.array(_VOWELS, float)[(t / 0.2).astype(int) % len(_VOWELS)]
    formants = [np.convolve(vowels[:, n], np.full(rate // 20, 20 / rate), "same") for n in range(3)]
    shaped, sound = list(zip(formants, (4, 2, 1), (60, 90, 120), strict=True)), np.zeros_like(t)
    for harmonic in range(1, 30):
        gains = [a / (1 + ((harmonic * pitch - f) / b) ** 2) for f, a, b in shaped]
        sound += sum(gains) * np.sin(harmonic * phase) / harmonic**0.5
    sound *= 0.35 + 0.65 * np.abs(np.sin(np.pi * t / 0.2))  # syllables
    sound *= np.any([(a <= t) & (t < b) for a, b in spoken], axis=0)
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setparams((1, 2, rate, 0, "NONE", ""))
        out.writeframes((sound / np.abs(sound).max() * 16_000).astype("<i2").tobytes())
    return file.getvalue()
