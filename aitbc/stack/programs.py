"""The processes of the running platform, as data: what `make up` starts and its supervisor keeps alive."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field

from aitbc.stack.paths import Var


@dataclass(frozen=True, kw_only=True)
class Program:
    """`stop_signal` asks for an orderly end; it is also what the program gets when its supervisor dies.
    What `serves` others ends after them: a miner takes its leave through the web."""

    name: str
    command: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)
    stop_signal: signal.Signals = signal.SIGTERM
    stop_seconds: float = 15
    serves: bool = False


@dataclass(frozen=True, kw_only=True)
class Ports:
    web: int
    stream: int


def platform_programs(var: Var, ports: Ports) -> tuple[Program, ...]:
    """Every process of one platform on one machine, in the order in which they are started."""
    web_url = f"http://127.0.0.1:{ports.web}"
    stream_url = f"http://127.0.0.1:{ports.stream}"
    # Unless told otherwise the miner takes the first processor, the platform's own worker the last, so that
    # no device is sold twice.
    cpus = os.sched_getaffinity(0)
    worker_cpus = os.environ.get("GPU_WORKER_CPUS") or str(max(cpus))
    miner = ("--key-file", str(var.keys / "miner.key"), "--url", web_url, "--cpus", str(min(cpus)))
    return (
        web_program(ports.web, workers=os.environ.get("WEB_PROCESSES") or "2", stream_url=stream_url),
        # Whoever waits there has nothing to lose: no reason to be waited for.
        _granian("stream", "asgi", "aitbc.stream:application", port=ports.stream, workers="1", grace=1),
        _manage("relay", "run_relay"),
        _manage("webhooks", "run_webhooks"),
        _manage("chain", "run_chain"),
        _celery("worker", "worker", "-Q", "default,settlement,zk,chain", "-c", "2", "-n", "worker@%h"),
        _celery("gpu", "worker", "-Q", "gpu", "-c", "1", "-n", "gpu@%h", GPU_WORKER_CPUS=worker_cpus),
        _celery("beat", "beat", "--pidfile="),
        _manage("miner", "run_miner", *miner),
    )


def web_program(port: int, *, workers: str, stream_url: str = "") -> Program:
    """The web server. A waiting poll keeps a thread: only a quarter of them may wait."""
    threads = int(os.environ.get("WEB_THREADS") or "8")
    return _granian(
        "web",
        "wsgi",
        "aitbc.wsgi:application",
        "--blocking-threads",
        str(threads),
        port=port,
        workers=workers,
        STREAM_URL=stream_url,
        POLL_WAITERS=str(max(1, threads // 4)),
    )


def _granian(
    name: str, interface: str, target: str, *more: str, port: int, workers: str, grace: int = 10, **environment: str
) -> Program:
    options = ["--host", "127.0.0.1", "--port", str(port), "--workers", workers, "--no-ws"]
    options += ["--respawn-failed-workers", "--respawn-interval", "0.5", "--workers-kill-timeout", str(grace)]
    command = (sys.executable, "-m", "granian", "--interface", interface, *options, *more, target)
    return Program(name=name, command=command, environment=environment, serves=True)


def _celery(name: str, *arguments: str, **environment: str) -> Program:
    # On SIGTERM a worker waits for its tasks, however long they take. Interrupted ones come back, since they
    # are acknowledged late. Beat has no tasks, and knows no SIGQUIT.
    stop_signal = signal.SIGQUIT if arguments[0] == "worker" else signal.SIGTERM
    command = (sys.executable, "-m", "celery", "-A", "aitbc", *arguments, "-l", "INFO")
    return Program(name=name, command=command, environment=environment, stop_signal=stop_signal)


def _manage(name: str, *arguments: str) -> Program:
    return Program(name=name, command=(sys.executable, "manage.py", *arguments))
