"""Keeps a list of programs running, and leaves nothing behind whichever way it ends itself.

Every program gets its stop signal from the kernel when this process dies. What a killed program leaves
(its own children) is handed to this process by the kernel and ended before the program starts again.
"""

from __future__ import annotations

import ctypes
import logging
import os
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from aitbc.stack import process
from aitbc.stack.paths import REPOSITORY, Var
from aitbc.stack.programs import Program

_PR_SET_CHILD_SUBREAPER = 36
_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 30.0  # seconds before a program that died is started again
_STEADY = 60.0  # after this long its deaths are forgotten
_STOP = {signal.SIGTERM, signal.SIGINT}
log = logging.getLogger(__name__)


@dataclass(kw_only=True)
class Watched:
    """One program and its history."""

    program: Program
    pid_file: Path
    log: Path
    started_at: float = 0.0
    due_at: float = 0.0
    pause: float = _FIRST_PAUSE
    deaths: int = 0

    @property
    def pid(self) -> int | None:
        return process.running(self.pid_file)

    def start(self) -> None:
        self.started_at, self.due_at = time.monotonic(), 0.0
        process.start(
            self.program.command,
            pid_file=self.pid_file,
            log=self.log,
            cwd=REPOSITORY,
            env={**os.environ, "PYTHONUNBUFFERED": "1", **self.program.environment},
            death_signal=self.program.stop_signal,
        )

    def note_death(self) -> None:
        """Plan the next start: at once for one that ran well, ever later for one that keeps dying."""
        if time.monotonic() - self.started_at > _STEADY:
            self.pause = _FIRST_PAUSE
        self.deaths += 1
        self.due_at = time.monotonic() + self.pause
        self.pause = min(2 * self.pause, _LONGEST_PAUSE)

    def wait_for_end(self) -> None:
        if not process.wait_for(lambda: self.pid is None, seconds=self.program.stop_seconds):
            log.warning("%s did not end within %.0f s", self.program.name, self.program.stop_seconds)
        process.stop(self.pid_file, with_signal=signal.SIGKILL, seconds=5, force=True)


class Supervisor:
    """`keep` is called about once a second and returns the pids of other children that are to live."""

    def __init__(self, programs: Sequence[Program], *, var: Var, keep: Callable[[], set[int]]) -> None:
        self.watched = [Watched(program=p, pid_file=var.pid_file(p.name), log=var.log_file(p.name)) for p in programs]
        self.keep = keep

    @property
    def pids(self) -> dict[str, int]:
        return {w.program.name: pid for w in self.watched if (pid := w.pid) is not None}

    def start(self) -> None:
        """Start every program; from here on orphans of this process's descendants come to it."""
        _adopt_orphans()
        signal.pthread_sigmask(signal.SIG_BLOCK, {*_STOP, signal.SIGCHLD})
        for watched in self.watched:
            watched.start()

    def wait(self, seconds: float) -> bool:
        """Keep the programs alive for this long; True as soon as this process is asked to end."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            received = signal.sigtimedwait({*_STOP, signal.SIGCHLD}, min(left, 1.0))
            if received is not None and received.si_signo in _STOP:
                return True
            self._look_after()
        return False

    def _look_after(self) -> None:
        wanted = self.keep()
        for watched in self.watched:
            if watched.pid is None and not watched.due_at:
                watched.note_death()
                log.warning("%s ended; starting it again in %.1f s", watched.program.name, watched.pause / 2)
        _end_strays(wanted | set(self.pids.values()))
        for watched in self.watched:
            if watched.due_at and watched.due_at <= time.monotonic():
                watched.start()

    def stop(self) -> None:
        """Ask the programs to end, first those that use others, and kill those that do not."""
        for serves in (False, True):
            wave = [watched for watched in self.watched if watched.program.serves is serves]
            for watched in wave:
                if (pid := watched.pid) is not None:
                    os.kill(pid, watched.program.stop_signal)
            for watched in wave:
                watched.wait_for_end()
        _end_strays(self.keep())


def _adopt_orphans() -> None:
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1):
        raise OSError(ctypes.get_errno(), "cannot become the reaper of orphaned processes")


def _end_strays(wanted: set[int]) -> None:
    """Kill and reap children that are none of ours: what a program that was killed left behind. Their own
    children come to this process in turn, hence the rounds."""
    for _ in range(20):
        strays = [child for child in psutil.Process().children() if child.pid not in wanted]
        for stray in strays:
            if stray.status() != psutil.STATUS_ZOMBIE:
                log.warning("ending process %s (%s), left by a program that died", stray.pid, stray.name())
                stray.kill()
        if not strays or psutil.wait_procs(strays, timeout=5)[1]:
            return
