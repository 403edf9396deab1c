"""The job's side of the sandbox: reads `request.json` in its scratch folder, writes `result.json`.

Runs in a process of its own that `zygote` forked or `bubblewrap` started, and ends with it.
"""

import errno
import json
import os
import resource
import socket
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import psutil

from apps.gpu import runtimes
from apps.gpu.agent import memory
from apps.gpu.agent.benchmark import measure
from apps.gpu.agent.challenge import Spec, commit, open_rows
from apps.gpu.runtimes.contract import Code, Context, RuntimeFailure

REQUEST, RESULT, LOG = "request.json", "result.json", "log.txt"
Answer = tuple[Any, dict[str, Any]]


def _job(payload: Any, context: Context) -> Answer:
    runtime = runtimes.find(payload["kind"])
    if reason := runtime.available(context.device):
        raise RuntimeFailure(Code.UNKNOWN, f"{runtime.kind} cannot run here: {reason}")
    _say(f"{runtime.kind}: started on {context.device}, threads {context.threads}")
    begun = time.perf_counter()
    try:
        answer = runtime.run(payload["input"], context)
    except RuntimeFailure as failure:
        _say(f"{failure.code}: {failure.message}")
        raise
    _say(f"{runtime.kind}: done after {time.perf_counter() - begun:.3f} s")
    return answer


def _say(line: str) -> None:
    """Into the job's log, which its client reads. Standard error keeps no lines back."""
    sys.stderr.write(f"{line}\n")


def _probe(payload: Any, context: Context) -> Answer:
    """What this process can reach; the parent decides whether that is little enough."""
    for module in (json, psutil, runtimes):  # one of the standard library, of the packages, of this project
        if module.__file__ is None or not os.access(module.__file__, os.R_OK):
            raise RuntimeFailure(Code.CRASHED, f"a job cannot read its code, {module.__file__}")
    readable = [path for path in payload["paths"] if os.access(path, os.R_OK)]
    (context.folder / "probe").write_text("written")
    found = {
        "readable": readable,
        "environment": sorted(os.environ),
        "processes": sum(name.isdigit() for name in os.listdir("/proc")),
        "interfaces": [name for _, name in socket.if_nameindex() if name != "lo"],
    }
    return found, {}


TASKS: Final[dict[str, Callable[[Any, Context], Answer]]] = {
    "job": _job,
    "probe": _probe,
    "benchmark": lambda asked, context: (measure(context.device, seconds=asked["seconds"]), {}),
    "challenge.memory": lambda s, context: (memory.prove(Spec(**s | {"seed": bytes.fromhex(s["seed"])}), context), {}),
    "challenge.commit": lambda spec, context: (commit(Spec.from_json(spec), context), {}),
    "challenge.open": lambda asked, context: (open_rows(Spec.from_json(asked["spec"]), asked["places"], context), {}),
}


def _attempt(request: dict[str, Any], folder: Path) -> dict[str, Any]:
    context = Context(
        folder=folder,
        artifacts={sha256: folder / name for sha256, name in request["artifacts"].items()},
        device=request["device"],
        threads=request["threads"],
    )
    try:
        begun = time.perf_counter()
        output, metrics = TASKS[request["task"]](request["payload"], context)
        metrics["runtime_seconds"] = round(time.perf_counter() - begun, 6)
        return {"output": output, "metrics": metrics}
    except RuntimeFailure as failure:
        return {"failure": {"code": failure.code, "message": failure.message}}
    except MemoryError:
        return {"failure": {"code": Code.MEMORY, "message": "the job ran out of memory"}}
    except Exception as error:  # the last frame of the process: nothing above it could report
        traceback.print_exc()
        message = f"the runtime stopped with {type(error).__name__}"
        code = Code.CRASHED
        if isinstance(error, OSError) and error.errno == errno.EFBIG:
            code, message = Code.OUTPUT_TOO_LARGE, "the job wrote a file larger than its limit"
        return {"failure": {"code": code, "message": message}}


def _usage() -> dict[str, float]:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return {"cpu_seconds": round(usage.ru_utime + usage.ru_stime, 3), "peak_bytes": usage.ru_maxrss * 1024}


def _write(folder: Path, answer: dict[str, Any], limit: int) -> None:
    text = json.dumps(answer, separators=(",", ":"), allow_nan=False)
    if len(text) > limit:
        message = f"the output takes {len(text)} bytes, the limit is {limit}"
        failure = {"code": Code.OUTPUT_TOO_LARGE, "message": message}
        text = json.dumps({**answer, "output": None, "metrics": {}, "failure": failure})
    (folder / "result.part").write_text(text)
    os.replace(folder / "result.part", folder / RESULT)


def main(folder: Path, isolation: dict[str, Any]) -> None:
    """Runs the request in `folder`; whatever happens, the answer is in `result.json` or there is none."""
    request = json.loads((folder / REQUEST).read_text())
    os.environ.update(HOME=str(folder), TMPDIR=str(folder), **request["environment"])
    answer = _attempt(request, folder)
    answer |= {"isolation": isolation, "usage": _usage()}
    _write(folder, answer, request["output_bytes"])
    sys.stdout.flush()
    sys.stderr.flush()
