"""Child processes, pid files that never name a stranger, and free ports. Linux only: it reads /proc."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
import pwd
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from aitbc.stack.errors import StackError
from aitbc.stack.paths import REPOSITORY

# Below the kernel's range for outgoing connections, so that a port stays free while its server is down.
PORTS = range(20_000, 30_000)
_PR_SET_PDEATHSIG = 1
_LOG_BYTES = 16 * 2**20
_libc = ctypes.CDLL(None, use_errno=True)


def identify(pid: int) -> str | None:
    """Who has this number now, as a pid file names it; None for nobody and for one that has ended.

    The number may be given to another process, its start (in clock ticks) within this boot may not.
    """
    state, identity = _look(pid)
    return None if state in "ZX" else identity


def _look(pid: int) -> tuple[str, str]:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return "X", ""
    return fields[0], f"{pid} {fields[19]} {_boot_id()}\n"


@functools.cache
def _boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def running(pid_file: Path) -> int | None:
    """The pid in `pid_file` if that very process still runs; a child of ours that has ended is reaped."""
    try:
        recorded = pid_file.read_text()
        pid = int(recorded.split()[0])
    except (FileNotFoundError, IndexError):  # IndexError: it died before it could write its name
        return None
    state, identity = _look(pid)
    if identity == recorded and state == "Z":
        with contextlib.suppress(ChildProcessError):  # somebody else's child
            os.waitpid(pid, os.WNOHANG)
    return pid if identity == recorded and state not in "ZX" else None


def as_user(account: pwd.struct_passwd | None) -> dict[str, Any]:
    """The options with which subprocess runs a program as this user; None is ourselves."""
    return {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []} if account else {}


def start(
    command: Sequence[str | Path],
    *,
    pid_file: Path,
    log: Path,
    cwd: Path = Path("/"),
    env: Mapping[str, str] | None = None,
    account: pwd.struct_passwd | None = None,
    death_signal: signal.Signals | None = None,
) -> int:
    """Start a server in a session of its own and return its pid.

    The child writes its pid file itself before it becomes the server: at no moment does it run unrecorded.
    With `death_signal` it belongs to this process and gets that signal when this one dies, however it dies.
    """
    if log.exists() and log.stat().st_size > _LOG_BYTES:
        log.replace(log.with_name(f"{log.name}.1"))
    record = os.open(pid_file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    try:
        with log.open("ab") as stream:
            child = subprocess.Popen(
                [os.fspath(part) for part in command],
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
                cwd=cwd,
                env=env,
                umask=0o077,
                start_new_session=True,
                preexec_fn=_before_exec(record, death_signal, os.getpid()),
                **as_user(account),
            )
    except (OSError, subprocess.SubprocessError) as error:
        raise StackError(f"cannot start {command[0]}: {error}") from error
    finally:
        os.close(record)
    child.returncode = 0  # reaped here by its number: a server that outlives this process is no mistake
    return child.pid


def _before_exec(record: int, death_signal: signal.Signals | None, parent: int) -> Callable[[], None]:
    def prepare() -> None:
        identity = identify(os.getpid())
        if identity is None:
            os._exit(126)
        os.write(record, identity.encode())
        signal.pthread_sigmask(signal.SIG_SETMASK, ())  # what the parent blocks is its own affair
        if death_signal is not None:
            _libc.prctl(_PR_SET_PDEATHSIG, int(death_signal))
            if os.getppid() != parent:  # it died before the call above
                os._exit(126)

    return prepare


def manage(*arguments: str | Path, given: str = "", check: bool = True) -> subprocess.CompletedProcess[str]:
    """An ended management command, `given` its standard input; an error with what it said when it failed."""
    done = subprocess.run(
        [sys.executable, "manage.py", *arguments],
        cwd=REPOSITORY,
        input=given,
        capture_output=True,
        text=True,
        check=False,
    )
    if check and done.returncode:
        raise StackError(f"manage.py {arguments[0]} failed\n{done.stdout}{done.stderr}")
    return done


def stop(pid_file: Path, *, with_signal: signal.Signals, seconds: float, force: bool) -> None:
    """End the process of `pid_file` and wait until it is gone; after `seconds` SIGKILL, or an error."""
    pid = running(pid_file)
    if pid is not None:
        os.kill(pid, with_signal)
        if not wait_for(lambda: running(pid_file) is None, seconds=seconds):
            if not force:
                raise StackError(f"process {pid} of {pid_file} did not end within {seconds:.0f} s")
            os.kill(pid, signal.SIGKILL)
            wait_for(lambda: running(pid_file) is None, seconds=5)
    pid_file.unlink(missing_ok=True)


def wait_for(condition: Callable[[], bool], *, seconds: float) -> bool:
    """Poll until `condition` holds; False when it did not within `seconds`."""
    deadline = time.monotonic() + seconds
    pause = 0.005
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(pause)
        pause = min(pause * 1.5, 0.1)
    return True


def wait_until_healthy(check: Callable[[], None], *, name: str, pid_file: Path, log: Path, seconds: float) -> None:
    """Repeat `check` until it raises no StackError; fail at once when the process ends."""
    last = "no answer"

    def healthy() -> bool:
        nonlocal last
        try:
            check()
        except StackError as error:
            last = str(error)
            if running(pid_file) is None:
                raise StackError(f"{name} ended while starting\n{tail(log)}") from error
            return False
        return True

    if not wait_for(healthy, seconds=seconds):
        raise StackError(f"{name} is not healthy after {seconds:.0f} s: {last}\n{tail(log)}")


def tail(log: Path, *, lines: int = 15) -> str:
    """The end of a log file, headed by its name."""
    text = log.read_text(errors="replace").splitlines()[-lines:] if log.exists() else []
    return "\n".join([f"--- last lines of {log}", *text])


def is_free(port: int) -> bool:
    """Whether a server could listen on this loopback port now."""
    try:
        socket.create_server(("127.0.0.1", port)).close()  # old connections do not count
    except OSError:
        return False
    return True


def free_port(*preferred: int) -> int:
    """The first of `preferred` that is free, else a free one at random."""
    for port in (*preferred, *random.sample(PORTS, 200)):
        if is_free(port):
            return port
    raise StackError(f"no free port found between {PORTS.start} and {PORTS.stop}")


def start_on_free_port(preferred: int, launch: Callable[[int], None]) -> None:
    """Call `launch` with a free port, again with another one if a stranger took it in the meantime."""
    port = free_port(preferred)
    for last in (False, False, True):
        try:
            return launch(port)
        except StackError:
            if last or is_free(port):
                raise
            port = free_port()


def listens(pid: int, port: int) -> bool:
    """Whether this very process, not another with the same answers, listens on the loopback port."""
    import psutil  # most who ask for an address need not spend the time

    try:
        found = psutil.Process(pid).net_connections("tcp4")
    except psutil.NoSuchProcess:
        return False
    return any(each.status == psutil.CONN_LISTEN and each.laddr.port == port for each in found)
