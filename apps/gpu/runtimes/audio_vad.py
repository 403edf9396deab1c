"""`audio.vad`: when somebody speaks in a recording, by Silero's model on onnxruntime, weights in its wheel.

The recording is mono 16-bit PCM in a WAV file. Its probabilities become segments as the model's authors
do it: speech begins at 0.5, ends below 0.35 for 100 ms, lasts at least 250 ms, and is widened by 30 ms.
"""

import wave
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from apps.gpu.runtimes import onnx_infer
from apps.gpu.runtimes.contract import Context, Runtime, invalid_input, missing_packages

if TYPE_CHECKING:
    import numpy as np

MAX_SECONDS: Final = 3_600
HEADER_BYTES: Final = 44  # of a WAV file with nothing but sound in it
MODEL: Final = "silero_vad"  # found, not imported: the package itself wants torch
_WINDOW, _CONTEXT = 0.032, 0.004  # seconds that one step looks at, and those before them that it sees again
_BEGIN, _END, _SILENCE, _SHORTEST, _PAD = 0.5, 0.35, 0.1, 0.25, 0.03


def _samples(path: Path, rate: int) -> "np.ndarray":
    """float32 in [-1, 1]. What the header says decides before a sample is read."""
    import numpy as np

    if path.stat().st_size > HEADER_BYTES + 2 * rate * MAX_SECONDS:
        raise invalid_input(f"the recording is longer than {MAX_SECONDS} s")
    try:
        with wave.open(str(path)) as file:
            if (file.getnchannels(), file.getsampwidth(), file.getframerate()) != (1, 2, rate):
                raise invalid_input(f"the recording is not mono, 16 bits, {rate} Hz")
            return np.frombuffer(file.readframes(MAX_SECONDS * rate), "<i2").astype(np.float32) / 32768
    except (wave.Error, EOFError, ValueError) as error:
        raise invalid_input("not a WAV file with PCM samples") from error


def _probabilities(samples: "np.ndarray", rate: int, threads: int) -> list[float]:
    """One for each window of 32 ms; the last one is filled up with silence."""
    import numpy as np
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = threads, 3
    model = Path(str(find_spec(MODEL).origin)).with_name("data") / "silero_vad.onnx"  # type: ignore[union-attr]
    session = onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
    window, context = round(_WINDOW * rate), round(_CONTEXT * rate)
    padded = np.concatenate([np.zeros(context, np.float32), samples, np.zeros(-len(samples) % window, np.float32)])
    state, found = np.zeros((2, 1, 128), np.float32), []
    for at in range(0, len(padded) - context, window):
        given = {"input": padded[None, at : at + context + window], "state": state, "sr": np.array(rate)}
        probability, state = session.run(None, given)
        found.append(float(probability[0, 0]))
    return found


def segments(probabilities: list[float], length: float) -> list[dict[str, float]]:
    """Spans of speech in seconds of a recording of `length`, in order, none touching the next."""
    spans: list[tuple[float, float]] = []
    start = quiet = None
    for at, probability in ((n * _WINDOW, p) for n, p in enumerate(probabilities)):
        if probability >= _BEGIN:
            start, quiet = at if start is None else start, None
        elif start is not None and probability < _END:
            quiet = at if quiet is None else quiet
            if at - quiet >= _SILENCE:
                spans.append((start, quiet))
                start = quiet = None
    if start is not None:
        spans.append((start, length if quiet is None else quiet))
    longer = ((max(0.0, a - _PAD), min(length, b + _PAD)) for a, b in spans if b - a >= _SHORTEST)
    return [{"start": round(a, 3), "end": round(b, 3)} for a, b in longer]


def run(job: Any, context: Context) -> tuple[Any, dict[str, Any]]:
    samples = _samples(context.artifact(job["audio"]), job["sample_rate"])
    length = len(samples) / job["sample_rate"]
    found = segments(_probabilities(samples, job["sample_rate"], context.threads), length)
    return {"segments": found}, {"audio_seconds": round(length, 3), "segments": len(found)}


def available(_: str) -> str | None:
    """The small model runs on the processor also where the slot has an accelerator."""
    return missing_packages(MODEL) or onnx_infer.available("cpu")


RUNTIME: Final = Runtime(
    kind="audio.vad",
    run=run,
    available=available,
    artifacts=lambda job: (job["audio"],),
    preload=("numpy", "onnxruntime"),
)
