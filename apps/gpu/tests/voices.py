"""A synthetic voice: a glottal tone under moving formants, that of `apps/gpu/demo/voice.wav` too."""

import io
import wave

import numpy as np

# First three formants in Hz of four vowels (Peterson and Barney 1952, men): father, heed, who, head.
_VOWELS = ((730, 1090, 2440), (270, 2290, 3010), (300, 870, 2240), (530, 1840, 2480))


def voice(*, rate: int = 16_000, spoken: tuple[tuple[float, float], ...] = ((1, 3),), seconds: float = 4) -> bytes:
    """WAV, mono, 16 bits: silence of `seconds` in which a synthetic voice speaks vowels in the spans `spoken`."""
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
