"""Runs a job in a process of its own, within limits, and kills all of it when one is passed.

Tiers: `bubblewrap` (namespaces: no network, no files of the host, own pids) where its self-test
passes; `process` (own process group, rlimits, memory watchdog, clean environment, scratch folder, and
as far as the system allows an own uid and no network) for development. The tier is in the metrics of
every result. Memory is counted as resident memory of the group, never as address space.
"""

import contextlib
import json
import logging
import os
import select
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from apps.gpu import runtimes
from apps.gpu.agent import bubblewrap, child
from apps.gpu.agent.confine import MAX_TASKS
from apps.gpu.agent.workspace import Workspace, Workspaces
from apps.gpu.agent.zygote import ROOT, Zygote
from apps.gpu.runtimes.contract import Code, RuntimeFailure

logger = logging.getLogger(__name__)

Tier = Literal["bubblewrap", "process"]
MIB: Final = 1 << 20
LOG_BYTES: Final = MIB
_TICK_MS: Final = 20.0  # between two looks at memory; a process fills about 100 MiB in that time
_PAGE: Final = os.sysconf("SC_PAGE_SIZE")
_INHERITED: Final = ("LD_LIBRARY_PATH", "CUDA_HOME", "CUDA_PATH", "ROCM_PATH", "TZ")


class Canceled(Exception):
    """The job was stopped because the platform asked for it."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """`seconds` of wall time; `memory_bytes` resident; `output_bytes` of the result as JSON."""

    seconds: float
    memory_bytes: int = 2048 * MIB
    output_bytes: int = 32 * MIB
    file_bytes: int = 1024 * MIB  # the largest file the job may write into its scratch folder


@dataclass(frozen=True)
class Outcome:
    """`milliseconds` of wall time from the start of the process to its end."""

    output: Any
    metrics: dict[str, Any]
    milliseconds: int


@dataclass(frozen=True)
class Slot:
    """A share of a device that runs one job at a time."""

    device: str = "cpu"
    threads: int = 1
    environment: tuple[tuple[str, str], ...] = ()


class Sandbox:
    """Runs tasks of `child.TASKS`. `close` it: it owns processes and folders.

    `tier` None takes the strongest that works here; one that does not raises RuntimeError with the
    reason. `threads` sizes the pools of the numerical libraries in a job.
    """

    def __init__(self, *, tier: Tier | None = None, threads: int = 1) -> None:
        self._environment = _clean_environment(threads)
        self._zygote: Zygote | None = None
        self._starting = threading.Lock()
        self._workspaces = Workspaces(separate_uids=False)
        self.tier: Tier = self._choose(tier)
        if self.tier == "process" and os.geteuid() == 0:
            self._separate_uids()
        self.facts = self._probe()

    # -- which tier ----------------------------------------------------------------------------
    def _choose(self, wanted: Tier | None) -> Tier:
        if wanted == "process":
            return "process"
        reason = bubblewrap.missing() or self._bubblewrap_fault()
        if reason is None:
            return "bubblewrap"
        if wanted == "bubblewrap":
            self.close()
            raise RuntimeError(f"the sandbox tier bubblewrap is not available: {reason}")
        logger.warning("jobs run in the sandbox tier process: %s", reason)
        return "process"

    def _bubblewrap_fault(self) -> str | None:
        self.tier = "bubblewrap"
        try:
            facts = self._probe()
        except RuntimeFailure as failure:
            return failure.message
        leaks = [name for name in ("readable", "interfaces") if facts[name]]
        return f"its self-test reached {', '.join(leaks)}" if leaks else None

    def _separate_uids(self) -> None:
        """Each job gets a uid of its own if such a process can still read the code it runs."""
        shared, self._workspaces = self._workspaces, Workspaces(separate_uids=True)
        try:
            self._probe()
            shared.close()
        except RuntimeFailure as failure:
            logger.warning("jobs run under the miner's own uid: %s", failure.message)
            self._workspaces.close()
            self._workspaces = shared

    def _probe(self) -> dict[str, Any]:
        """What a job can reach: secrets beside the code, network interfaces, environment, processes."""
        paths = [*(str(ROOT / name) for name in (".env", "var", ".git")), "/etc/shadow", "/etc/passwd"]
        with self.workspace() as workspace:
            outcome = self.run(workspace, "probe", {"paths": paths}, Limits(seconds=30), Slot())
        facts: dict[str, Any] = {**outcome.output, **outcome.metrics["sandbox"]}
        return facts

    @property
    def exposed(self) -> list[str]:
        """What of the host a client's own program could reach here."""
        return [path for path in self.facts["readable"] if path != "/etc/passwd"] + list(self.facts["interfaces"])

    # -- running -------------------------------------------------------------------------------
    def workspace(self) -> contextlib.AbstractContextManager[Workspace]:
        return self._workspaces.new()

    def run(
        self,
        workspace: Workspace,
        task: str,
        payload: Any,
        limits: Limits,
        slot: Slot,
        stopped: Callable[[], bool] = lambda: False,
    ) -> Outcome:
        """The task's output; RuntimeFailure with its code if it failed, `Canceled` once `stopped()`.

        No process of the job is left when this returns or raises.
        """
        workspace.write_request(
            {
                "task": task,
                "payload": payload,
                "device": slot.device,
                "threads": slot.threads,
                "environment": dict(slot.environment),
                "output_bytes": limits.output_bytes,
            }
        )
        workspace.hand_over()
        begun = time.monotonic()
        process = self._launch(workspace, limits)
        try:
            peak = _watch(process.pid, begun + limits.seconds, limits, stopped)
        finally:
            code = process.finish()
        milliseconds = round((time.monotonic() - begun) * 1000)
        return self._outcome(workspace, limits, code, peak, milliseconds)

    def _launch(self, workspace: Workspace, limits: Limits) -> "_Forked | _Started":
        processors = len(os.sched_getaffinity(0))  # the miner's own share, which its jobs inherit
        cpu_seconds = int(limits.seconds * processors) + 5
        confined: dict[str, Any] = {"cpu_seconds": cpu_seconds, "file_bytes": limits.file_bytes}
        if self.tier == "bubblewrap":
            argv = bubblewrap.argv(workspace.folder, self._environment, json.dumps(confined))
            return _Started(argv, workspace.folder / child.LOG)
        confined["uid"] = workspace.uid
        zygote = self._warm()
        try:
            return _Forked(zygote, zygote.spawn(workspace.folder, confined))
        except (ConnectionError, BrokenPipeError) as error:
            self._forget(zygote)
            raise RuntimeFailure(Code.CRASHED, "the miner's warm process had ended") from error

    def _warm(self) -> Zygote:
        with self._starting:
            if self._zygote is None:
                modules = {m for r in runtimes.runtimes().values() if not r.available("cpu") for m in r.preload}
                self._zygote = Zygote(modules=sorted(modules), environment=self._environment)
            return self._zygote

    def _forget(self, zygote: Zygote) -> None:
        with self._starting:
            if self._zygote is zygote:
                self._zygote.close()
                self._zygote = None

    def _outcome(self, workspace: Workspace, limits: Limits, code: int, peak: int, milliseconds: int) -> Outcome:
        content = workspace.read(child.RESULT, limits.output_bytes + MIB)
        if content is None:
            _log_tail(workspace)
            how = f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
            raise RuntimeFailure(Code.CRASHED, f"the job ended without a result: {how}")
        try:
            answer = json.loads(content)
            failure, output = answer.get("failure"), answer.get("output")
            if failure is not None:
                raised = RuntimeFailure(Code(failure["code"]), str(failure["message"])[:1000])
            metrics = answer.get("metrics", {}) | {
                "wall_ms": milliseconds,
                "cpu_seconds": answer["usage"]["cpu_seconds"],
                "peak_memory_mb": round(max(peak, answer["usage"]["peak_bytes"]) / MIB),
                "sandbox": {"tier": self.tier, **answer["isolation"]},
            }
        except (ValueError, KeyError, TypeError, AttributeError) as error:  # a hostile job wrote the file
            raise RuntimeFailure(Code.CRASHED, "the job left a result that is not one") from error
        if failure is None:
            return Outcome(output, metrics, milliseconds)
        if raised.code == Code.CRASHED:
            _log_tail(workspace)
        raise raised

    def close(self) -> None:
        if self._zygote is not None:
            self._zygote.close()
            self._zygote = None
        self._workspaces.close()


def _clean_environment(threads: int) -> dict[str, str]:
    """Nothing of the miner's own environment but where accelerator libraries lie."""
    pools = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    return {
        "PATH": "/usr/bin:/bin",
        "LANG": "C.UTF-8",
        "HF_HUB_OFFLINE": "1",  # models come from wheels; a hub must not even be asked
        **dict.fromkeys(pools, str(threads)),
        **{name: os.environ[name] for name in _INHERITED if name in os.environ},
    }


# -- processes ---------------------------------------------------------------------------------
# A running job: `pid` leads its process group; `finish` kills what is left of the group and reaps its
# leader, and returns its exit code, negative for a signal.
def _kill_group(leader: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(leader, signal.SIGKILL)


class _Forked:
    def __init__(self, zygote: Zygote, pid: int) -> None:
        self.pid, self._zygote = pid, zygote

    def finish(self) -> int:
        _kill_group(self.pid)
        try:
            return self._zygote.wait(self.pid)
        except (ConnectionError, BrokenPipeError):
            return -signal.SIGKILL  # the zygote's end took the job with it


class _Started:
    def __init__(self, argv: list[str], log: Path) -> None:
        with open(log, "wb") as file:
            self._process = subprocess.Popen(
                argv, env={}, stdin=subprocess.DEVNULL, stdout=file, stderr=file, start_new_session=True
            )
        self.pid = self._process.pid

    def finish(self) -> int:
        _kill_group(self.pid)
        code = self._process.wait()
        return 128 - code if code > 128 else code  # as a shell does, bwrap adds 128 to a signal


def _watch(pid: int, deadline: float, limits: Limits, stopped: Callable[[], bool]) -> int:
    """Waits for the end of the job, or raises why it must end. Returns the most resident bytes seen."""
    peak, tick_ms = 0, 2.0  # the first look comes early, for the shortest jobs
    descriptor, ended = os.pidfd_open(pid), select.poll()
    ended.register(descriptor, select.POLLIN)
    try:
        while not ended.poll(tick_ms):
            family = list(_family(pid))
            peak, tick_ms = max(peak, sum(family)), _TICK_MS
            if len(family) > MAX_TASKS:  # the kernel's own limit does not hold for root
                raise RuntimeFailure(Code.PROCESSES, f"the job had more than {MAX_TASKS} processes")
            if peak > limits.memory_bytes:
                used = f"{peak // MIB} MiB of memory, its limit is {limits.memory_bytes // MIB} MiB"
                raise RuntimeFailure(Code.MEMORY, f"the job used {used}")
            if time.monotonic() > deadline:
                raise RuntimeFailure(Code.TIMEOUT, f"the job ran longer than its {limits.seconds:g} seconds")
            if stopped():
                raise Canceled
    finally:
        os.close(descriptor)
    return peak


def _family(pid: int) -> Iterator[int]:
    """Resident bytes of a process and of each of its descendants (pages they share count for each)."""
    pids = [pid]
    while pids:
        process = Path(f"/proc/{pids.pop()}")
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it has ended
            yield int((process / "statm").read_text().split()[1]) * _PAGE
            for task in (process / "task").iterdir():
                pids += map(int, (task / "children").read_text().split())


def _log_tail(workspace: Workspace) -> None:
    """The end of what a crashed job printed, for the provider's eyes: it may name paths of the host."""
    if printed := workspace.read(child.LOG, LOG_BYTES):
        logger.warning("a job crashed; it printed: %s", printed[-2000:].decode(errors="replace").strip())
