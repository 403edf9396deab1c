"""A warm interpreter that forks one process per job.

Importing onnxruntime, OpenCV and NumPy costs 0.6 s; a fork of a process that has done it costs some
milliseconds. The zygote only imports and forks: it parses no client's data and makes no session or
CUDA context, so every job starts from the same clean memory. It has no secret in its environment,
ends when its parent's end of the socket closes, and its jobs die with it.
"""

import contextlib
import importlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from apps.gpu.agent import child, confine

ROOT: Final = Path(__file__).resolve().parents[3]
_CHILDREN: Final = Path("/proc/self/task") / str(os.getpid()) / "children"


def interpreter(module: str, function: str, *arguments: str, root: Path = ROOT) -> list[str]:
    """argv of this Python, isolated from environment and user site, calling `module.function(*arguments)`."""
    path = f"import sys; sys.path.insert(0, {str(root)!r})"
    call = f"from {module} import {function}; {function}(*sys.argv[1:])"
    return [sys.executable, "-I", "-B", "-c", f"{path}; {call}", *arguments]


# -- in the zygote -----------------------------------------------------------------------------
def serve(descriptor: str, modules: str) -> None:
    """Answers `spawn` and `wait` on the socket until its other end closes."""
    for name in filter(None, modules.split(",")):
        importlib.import_module(name)
    confine.adopt_orphans()
    jobs: set[int] = set()
    connection = socket.socket(fileno=int(descriptor))
    with connection.makefile("rwb", buffering=0) as stream:
        stream.write(b'{"ready": true}\n')
        for line in stream:
            request = json.loads(line)
            answer = _spawn(request, jobs) if "folder" in request else _wait(request["wait"], jobs)
            stream.write(json.dumps(answer).encode() + b"\n")


def _spawn(request: dict[str, Any], jobs: set[int]) -> dict[str, Any]:
    parent, pid = os.getpid(), os.fork()
    if pid == 0:
        _become_job(request, parent)
    # Both sides set the group, so that it exists when the parent hears of the job and in the job itself.
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.setpgid(pid, pid)
    jobs.add(pid)
    return {"pid": pid}


def _become_job(request: dict[str, Any], parent: int) -> None:
    status = 1
    try:
        os.setpgid(0, 0)
        folder = Path(request["folder"])
        log = os.open(folder / child.LOG, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.closerange(3, 256)
        os.chdir(folder)
        child.main(folder, confine.confine(parent=parent, **request["confine"]))
        status = 0
    finally:
        os._exit(status)  # never back into the zygote's loop, whatever was raised


def _wait(pid: int, jobs: set[int]) -> dict[str, Any]:
    _, status = os.waitpid(pid, 0)
    jobs.discard(pid)
    _kill_strays(jobs)
    return {"exit": os.waitstatus_to_exitcode(status)}


def _kill_strays(jobs: set[int]) -> None:
    """Ends what left its job's process group: orphans come to the zygote, their nearest subreaper."""
    while strays := set(map(int, _CHILDREN.read_text().split())) - jobs:
        for pid in strays:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


# -- in the miner ------------------------------------------------------------------------------
class Zygote:
    """The miner's handle on its zygote; safe to use from several threads."""

    def __init__(self, *, modules: Sequence[str], environment: Mapping[str, str]) -> None:
        ours, theirs = socket.socketpair()
        argv = interpreter(__name__, "serve", str(theirs.fileno()), ",".join(modules))
        with theirs:
            self._process = subprocess.Popen(
                argv, env=dict(environment), pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, cwd="/"
            )
        self._lock = threading.Lock()
        self._stream = ours.makefile("rwb", buffering=0)
        ours.close()
        self._read()

    @property
    def pid(self) -> int:
        return self._process.pid

    def _read(self) -> dict[str, Any]:
        line = self._stream.readline()
        if not line:
            raise ConnectionError("the zygote has ended")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        with self._lock:
            self._stream.write(json.dumps(request).encode() + b"\n")
            return self._read()

    def spawn(self, folder: Path, limits: Mapping[str, Any]) -> int:
        """Process id of a job working in `folder`; ConnectionError if the zygote is gone."""
        return int(self._ask({"folder": str(folder), "confine": dict(limits)})["pid"])

    def wait(self, pid: int) -> int:
        """Reaps a job that has ended; its exit code, negative for a signal. Until then its process id
        cannot be given to another process."""
        return int(self._ask({"wait": pid})["exit"])

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._stream.close()
        self._process.kill()
        self._process.wait()
