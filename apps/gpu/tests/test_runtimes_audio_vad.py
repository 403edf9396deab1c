import hashlib
import io
import wave

import jsonschema
import numpy as np
import pytest

from apps.gpu import demo
from apps.gpu.runtimes import audio_vad
from apps.gpu.runtimes.contract import Code, Context, RuntimeFailure
from apps.gpu.tests.voices import voice


def heard(tmp_path, content, rate=16_000):
    sha256 = hashlib.sha256(content).hexdigest()
    (tmp_path / "audio").write_bytes(content)
    job = {"audio": sha256, "sample_rate": rate}
    jsonschema.validate(job, audio_vad.RUNTIME.input_schema)
    assert audio_vad.RUNTIME.artifacts(job) == (sha256,)
    output, metrics = audio_vad.run(job, Context(tmp_path, {sha256: tmp_path / "audio"}))
    jsonschema.validate(output, audio_vad.RUNTIME.output_schema)
    return output["segments"], metrics


def refusal(tmp_path, content, rate=16_000):
    with pytest.raises(RuntimeFailure) as caught:
        heard(tmp_path, content, rate)
    assert (caught.value.code, caught.value.fault) == (Code.INVALID_INPUT, "client")
    return caught.value.message


def recording(samples, *, rate=16_000, channels=1, width=2):
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setparams((channels, width, rate, 0, "NONE", ""))
        out.writeframes(samples.astype("<i2").tobytes())
    return file.getvalue()


def test_speech_is_found_where_it_was_put(tmp_path):
    segments, metrics = heard(tmp_path, voice(spoken=((1, 3), (4, 5)), seconds=6))

    assert segments == [{"start": 0.962, "end": 3.07}, {"start": 3.97, "end": 5.086}]
    assert metrics == {"audio_seconds": 6.0, "segments": 2}


def test_the_slower_rate_is_heard_too(tmp_path):
    (segment,), _ = heard(tmp_path, voice(rate=8_000), 8_000)

    assert segment["start"] == pytest.approx(1, abs=0.1)
    assert segment["end"] == pytest.approx(3, abs=0.2)


def test_silence_and_noise_are_no_speech(tmp_path):
    noise = np.random.default_rng(7).normal(0, 3000, 32_000)

    assert heard(tmp_path, recording(np.zeros(32_000)))[0] == []
    assert heard(tmp_path, recording(noise.clip(-32768, 32767)))[0] == []
    assert heard(tmp_path, recording(np.zeros(0)))[0] == []


def test_another_form_than_the_one_named_is_refused(tmp_path):
    for other in (
        recording(np.zeros(3200), rate=8_000),
        recording(np.zeros(3200), channels=2),
        recording(np.zeros(3200), width=4),
    ):
        assert refusal(tmp_path, other) == "the recording is not mono, 16 bits, 16000 Hz"


@pytest.mark.parametrize("content", [b"", b"RIFF", b"RIFF\xff\xff\xff\xffWAVEfmt ", b"\x00" * 1000])
def test_what_is_no_recording_is_refused(tmp_path, content):
    assert refusal(tmp_path, content) == "not a WAV file with PCM samples"


def test_too_long_a_recording_is_refused_before_it_is_read(tmp_path):
    with (tmp_path / "audio").open("wb") as file:  # a hole, no bytes on disk
        file.truncate(audio_vad.HEADER_BYTES + 2 * 16_000 * audio_vad.MAX_SECONDS + 2)
    context = Context(tmp_path, {"a" * 64: tmp_path / "audio"})

    with pytest.raises(RuntimeFailure, match="the recording is longer than 3600 s"):
        audio_vad.run({"audio": "a" * 64, "sample_rate": 16_000}, context)


@pytest.mark.parametrize(
    ("windows", "expected"),
    [
        ([0.5] * 10, [{"start": 0.0, "end": 0.32}]),
        ([0.49] * 10, []),
        ([0.9] * 7, []),  # 224 ms are no speech
        ([0.9] * 8, [{"start": 0.0, "end": 0.256}]),
        ([0.9] * 8 + [0.1] * 3 + [0.9] * 8, [{"start": 0.0, "end": 0.608}]),  # a pause of 96 ms goes on
        ([0.9] * 8 + [0.1] * 5 + [0.9] * 8, [{"start": 0.0, "end": 0.286}, {"start": 0.386, "end": 0.672}]),
        ([0.9] * 8 + [0.4] * 20, [{"start": 0.0, "end": 0.896}]),  # between the thresholds it goes on
    ],
)
def test_probabilities_become_segments(windows, expected):
    assert audio_vad.segments(windows, len(windows) * 0.032) == expected


def test_the_recording_of_the_self_test_is_that_of_the_synthetic_voice():
    made, kept = (wave.open(io.BytesIO(c)) for c in (voice(spoken=((1, 2),), seconds=3), demo.VOICE_PATH.read_bytes()))
    samples = [np.frombuffer(file.readframes(48_000), "<i2").astype(int) for file in (made, kept)]

    assert made.getparams() == kept.getparams()
    assert np.abs(samples[0] - samples[1]).max() <= 1  # another machine may round another way


def test_without_the_model_the_kind_is_not_offered(monkeypatch):
    monkeypatch.setattr(audio_vad, "MODEL", "no_such_package")

    assert audio_vad.available("cpu") == "not installed: no_such_package"
