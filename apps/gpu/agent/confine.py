"""What a job's process does to itself before it touches the job: fewer rights, fewer resources."""

import ctypes
import fcntl
import os
import resource
import signal
import socket
import struct
from pathlib import Path
from typing import Any, Final

_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER, _PR_SET_NO_NEW_PRIVS = 1, 36, 38
_CLONE_NEWUSER, _CLONE_NEWIPC, _CLONE_NEWNET = 0x1000_0000, 0x0800_0000, 0x4000_0000
_SIOCSIFFLAGS, _IFF_UP = 0x8914, 1
MAX_OPEN_FILES: Final = 256
MAX_TASKS: Final = 512  # processes and threads of the job's own uid; the kernel exempts root

_libc = ctypes.CDLL(None, use_errno=True)


def adopt_orphans() -> None:
    """Makes this process the parent of descendants whose own parent has ended."""
    _libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def leave_network() -> str:
    """`none` once the process is in an empty network namespace, `host` where the system forbids it.

    An unprivileged process gets there through a user namespace, in which it keeps its own uid: without
    the mapping it could not create files.
    """
    uid, gid = os.geteuid(), os.getegid()
    flags = _CLONE_NEWNET | _CLONE_NEWIPC | (0 if uid == 0 else _CLONE_NEWUSER)
    if _libc.unshare(flags) != 0:
        return "host"
    if uid != 0:
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"{uid} {uid} 1")
        Path("/proc/self/gid_map").write_text(f"{gid} {gid} 1")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:  # its own loopback, as in a container
        fcntl.ioctl(any_socket, _SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", _IFF_UP))
    return "none"


def _become(uid: int) -> None:
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)


def _limit(kind: int, value: int) -> None:
    _, hard = resource.getrlimit(kind)
    value = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.setrlimit(kind, (value, value))


def _die_with(parent: int) -> None:
    # Cleared by every change of uid, so it is set after the last one; the parent may be gone already.
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)


def apply_limits(*, cpu_seconds: int, file_bytes: int) -> None:
    """Resource limits, no new privileges by set-uid programs, files for the own uid only."""
    _limit(resource.RLIMIT_CORE, 0)
    _limit(resource.RLIMIT_CPU, cpu_seconds)
    _limit(resource.RLIMIT_FSIZE, file_bytes)
    _limit(resource.RLIMIT_NOFILE, MAX_OPEN_FILES)
    _limit(resource.RLIMIT_NPROC, MAX_TASKS)
    _libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    os.umask(0o077)


def confine(*, uid: int | None, cpu_seconds: int, file_bytes: int, parent: int) -> dict[str, Any]:
    """Drops network, uid, privileges and resources, for good; says what was reached.

    Resident memory is not limited here but watched by the parent: RLIMIT_AS counts address space,
    of which CUDA reserves far more than it uses.
    """
    # The kernel's own killer must take the job before the miner or anything else on the host.
    Path("/proc/self/oom_score_adj").write_text("1000")
    network = leave_network()
    if uid is not None:
        _become(uid)
    apply_limits(cpu_seconds=cpu_seconds, file_bytes=file_bytes)
    _die_with(parent)
    return {"network": network, "uid": os.geteuid()}
