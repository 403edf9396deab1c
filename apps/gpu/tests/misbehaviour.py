"""Tasks that a hostile or broken job could do; loaded into a test's zygote, never into a miner's."""

import ctypes
import os
import signal
import socket
import time

from apps.gpu.agent import child


def _segfault(payload, context):
    ctypes.string_at(0)


def _sleep(payload, context):
    time.sleep(payload)
    return "slept", {}


def _allocate(payload, context):
    kept = []
    while True:
        kept.append(b"x" * (16 << 20))
        time.sleep(0.01)


def _allocate_in_a_child(payload, context):
    if os.fork() == 0:
        _allocate(payload, context)
    time.sleep(60)


def _leave_a_stray(payload, context):
    pid = os.fork()
    if pid == 0:
        os.setsid()
        if os.fork() == 0:
            (context.folder / "stray").write_text(str(os.getpid()))
            time.sleep(60)
        os._exit(0)
    os.waitpid(pid, 0)
    while not (context.folder / "stray").exists():
        time.sleep(0.01)
    return int((context.folder / "stray").read_text()), {}


def _result_is_a(kind):
    def task(payload, context):
        path = context.folder / child.RESULT
        if kind == "link":
            path.symlink_to(payload)
        elif kind == "pipe":
            os.mkfifo(path)
        elif kind == "folder":
            path.mkdir()
        else:
            path.write_text(payload)
        os._exit(0)

    return task


def _write_a_large_file(payload, context):
    (context.folder / "large").write_bytes(b"x" * payload)
    return "written", {}


def _large_output(payload, context):
    return "x" * payload, {}


def _connect(payload, context):
    try:
        socket.create_connection(("127.0.0.1", payload), timeout=2).close()
    except OSError as error:
        return type(error).__name__, {}
    return "connected", {}


def _ignore_signals(payload, context):
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    time.sleep(60)


child.TASKS.update(
    {
        "segfault": _segfault,
        "sleep": _sleep,
        "allocate": _allocate,
        "allocate in a child": _allocate_in_a_child,
        "leave a stray": _leave_a_stray,
        "result is a link": _result_is_a("link"),
        "result is a pipe": _result_is_a("pipe"),
        "result is a folder": _result_is_a("folder"),
        "result is a text": _result_is_a("text"),
        "write a large file": _write_a_large_file,
        "large output": _large_output,
        "connect": _connect,
        "ignore signals": _ignore_signals,
    }
)
