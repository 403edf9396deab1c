"""Does this machine work as a miner? Every part is tried for real; nothing here is a literal verdict."""

import base64
import hashlib
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, Final

import httpx

from aitbc.core.errors import DomainError, NotFound
from apps.gpu import demo, runtimes
from apps.gpu.agent.detect import Detection, Device
from apps.gpu.agent.sandbox import Limits, Sandbox, Slot
from apps.gpu.agent.telemetry import Sampler
from apps.gpu.agent.transport import HttpTransport
from apps.gpu.runtimes.contract import RuntimeFailure

JSON = dict[str, Any]
DISK_BYTES: Final = 2 << 30  # scratch of a job: its model, its input, its output
CLOCK_SECONDS: Final = 5.0


@dataclass(frozen=True)
class Sample:
    """A small job of a kind, the artifacts it names, and whether its output is right."""

    make: Callable[[], tuple[JSON, list[bytes]]]
    check: Callable[[Any], bool]


def _onnx() -> tuple[JSON, list[bytes]]:
    model = demo.MODEL_PATH.read_bytes()
    x = {"dtype": "float32", "shape": [1, demo.INPUTS], "data": [0.5] * demo.INPUTS}
    return {"model": hashlib.sha256(model).hexdigest(), "inputs": {"x": x}}, [model]


def _onnx_is_right(output: Any) -> bool:
    import numpy as np

    expected = demo.mlp_reference(np.full((1, demo.INPUTS), 0.5))[0]
    return bool(np.allclose(output["outputs"]["probabilities"]["data"], expected, atol=1e-5))


# The product of seed 1, as every machine computes it.
_ROOT: Final = "0x7cbac57efbd6d1d5bb71890622be4bbb9b0bddd93e335045add6273a46a973ce"
_RAY: Final = "python -c 'import ray; ray.init(); assert ray.get(ray.put(5)) == 5'"
_NO_FILES: Final = b"PK\5\6" + bytes(18)  # a zip archive of nothing
SAMPLES: Final = {
    "audio.vad": Sample(
        lambda: ({"audio": demo.VOICE_SHA256, "sample_rate": 16_000}, [demo.VOICE_PATH.read_bytes()]),
        lambda o: o["segments"] == [{"start": 0.962, "end": 2.046}],
    ),
    "bench.matmul": Sample(lambda: ({"n": 256, "seed": 1, "dtype": "float32"}, []), lambda o: o["root"] == _ROOT),
    "container.run": Sample(
        lambda: ({"command": ["sh", "-c", "echo self-test >&2; expr 2 + 3"]}, []),
        lambda o: (o["stdout"], o["stderr"]) == ("5\n", "self-test\n"),
    ),
    "onnx.infer": Sample(_onnx, _onnx_is_right),
    "vision.ocr": Sample(
        lambda: ({"image": base64.b64encode(demo.picture("self-test 2718")).decode()}, []),
        lambda o: [line["text"] for line in o["lines"]] == ["self-test 2718"],
    ),
    "ray.submit": Sample(
        lambda: ({"entrypoint": _RAY, "working_dir": hashlib.sha256(_NO_FILES).hexdigest()}, [_NO_FILES]),
        lambda o: o["status"] == "SUCCEEDED",
    ),
    "text.embed": Sample(
        lambda: ({"texts": ["self-test"]}, []), lambda o: abs(sum(x * x for x in o["vectors"][0]) - 1) < 1e-3
    ),
}


_BARE: Final = "the sandbox does not hide this host from a job: install bubblewrap"


def run(detection: Detection, sandbox: Sandbox, slot: Slot, checks: JSON | None = None) -> JSON:
    """`ok` only if a small job of every installed kind gave the right output in the sandbox, and every one of
    the `checks` that is required came out well."""
    kinds = runtimes.available_kinds(slot.device)
    bare = {kind for kind in kinds if runtimes.find(kind).runs_commands and sandbox.exposed}
    results = {kind: try_kind(kind, sandbox, slot) for kind in kinds if kind not in bare}
    needed = [*results.values(), *(check for check in (checks or {}).values() if check["required"])]
    return {
        "ok": bool(results) and all(result["ok"] for result in needed),
        "devices": [_device(device) for device in detection.devices],
        "absent": detection.absent,
        "sandbox": sandbox.facts | {"tier": sandbox.tier},
        "kinds": results,
        "unavailable": runtimes.unavailable(slot.device) | dict.fromkeys(bare, _BARE),
        "checks": checks or {},
    }


def _check(ok: bool, reason: str, *, required: bool = True) -> JSON:
    return {"ok": ok, "required": required, "reason": reason}


def surroundings(url: str | None, api_key: str | None, state: Path) -> JSON:
    """The disk, and with a platform to ask: the way to it, its word on the key, and this machine's clock."""
    checks = {f"disk {path}": _disk(path) for path in dict.fromkeys((Path(tempfile.gettempdir()), state))}
    if url is None:
        return checks | {"platform": _check(False, "not asked: give --url", required=False)}
    try:
        begun = time.time()
        answer = httpx.get(f"{url.rstrip('/')}/health/live", timeout=10).raise_for_status()
    except httpx.HTTPError as error:
        return checks | {"platform": _check(False, f"{url} does not answer: {error or type(error).__name__}")}
    checks["platform"] = _check(True, f"{url} answered in {(time.time() - begun) * 1000:.0f} ms")
    if "Date" in answer.headers:  # in whole seconds, as of the middle of the way there and back
        told = parsedate_to_datetime(answer.headers["Date"]).timestamp() + 0.5
        off = (begun + time.time()) / 2 - told
        checks["clock"] = _check(abs(off) <= CLOCK_SECONDS, f"{off:+.1f} s beside the platform's", required=False)
    return checks | ({"key": _key(url, api_key)} if api_key else {})


def _disk(path: Path) -> JSON:
    free = shutil.disk_usage(next(folder for folder in (path, *path.parents) if folder.exists())).free
    return _check(free >= DISK_BYTES, f"{free >> 20} MiB free of the {DISK_BYTES >> 20} that jobs may need")


def _key(url: str, api_key: str) -> JSON:
    with closing(HttpTransport(url, api_key, patience=5)) as transport:
        try:
            return _check(True, f"of the miner {transport.me()['name']}")
        except NotFound:
            return _check(True, "valid; no miner has registered with it yet")
        except DomainError as error:
            return _check(False, f"{error.message} ({error.code})")


def lines(report: JSON) -> Iterator[str]:
    """The report for people, a line for each thing that was tried."""
    yield f"sandbox   {report['sandbox']['tier']}"
    for device in report["devices"]:
        seen = ", ".join(f"{name} {value}" for name, value in device["telemetry"].items() if value is not None)
        yield f"device    {device['model']}, {device['memory_mb']} MiB ({device['uuid']}): {seen}"
    for name, tried in {**report["kinds"], **report["checks"]}.items():
        verdict = "ok" if tried["ok"] else "FAILED" if tried.get("required", True) else "note"
        yield f"{verdict:<9} {name}: {tried.get('reason') or str(tried['milliseconds']) + ' ms'}"
    yield from (f"without   {what}: {why}" for what, why in {**report["absent"], **report["unavailable"]}.items())


def _device(device: Device) -> JSON:
    shown = {name: value for name, value in vars(device).items() if value not in (None, ())}
    return shown | {"telemetry": Sampler(device).sample()}


def try_kind(kind: str, sandbox: Sandbox, slot: Slot) -> JSON:
    """Runs the kind's small job: `ok`, `milliseconds`, or the `reason` it did not work."""
    sample = SAMPLES[kind]
    job, contents = sample.make()
    try:
        with sandbox.workspace() as workspace:
            for content in contents:
                workspace.place(hashlib.sha256(content).hexdigest()).write_bytes(content)
            outcome = sandbox.run(workspace, "job", {"kind": kind, "input": job}, Limits(seconds=120), slot)
    except RuntimeFailure as failure:
        return {"ok": False, "reason": str(failure)}
    if not sample.check(outcome.output):
        return {"ok": False, "reason": "the output is wrong", "milliseconds": outcome.milliseconds}
    return {"ok": True, "milliseconds": outcome.milliseconds}
