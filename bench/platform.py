"""A platform of the benchmark's own: a fresh database on the embedded stores and a web server."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

ROOT = Path(__file__).resolve().parents[1]
DATABASE = "aitbc_bench"


def prepare() -> None:
    """Stores up, a fresh database migrated, the environment pointed at it. Before Django is set up."""
    import psycopg

    from aitbc import stack

    stack.up(services=("postgres", "redis"))
    urls = stack.discover()
    with psycopg.connect(urls.database_owner_url, autocommit=True) as admin:
        admin.execute(f"DROP DATABASE IF EXISTS {DATABASE} WITH (FORCE)")
        admin.execute(f"CREATE DATABASE {DATABASE}")
    os.environ |= {
        "DJANGO_SETTINGS_MODULE": "aitbc.settings.local",
        "DATABASE_URL": _named(urls.database_url),
        "DATABASE_OWNER_URL": _named(urls.database_owner_url),
        "RATE_LIMIT_ENABLED": "0",
    }
    subprocess.run([sys.executable, "manage.py", "migrate", "-v0"], cwd=ROOT, check=True)


def _named(url: str) -> str:
    return urlunsplit(urlsplit(url)._replace(path=f"/{DATABASE}"))


@contextmanager
def web(processes: int = 2) -> Iterator[tuple[int, subprocess.Popen[bytes]]]:
    """The web server as `make up` starts it; yields its port and process."""
    from aitbc.stack.programs import web_program

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    program = web_program(port, workers=str(processes))
    log = (ROOT / "var" / "log" / "bench-web.log").open("ab")
    server = subprocess.Popen(
        program.command,
        cwd=ROOT,
        env=os.environ | dict(program.environment),
        stdout=log,
        stderr=log,
        start_new_session=True,
    )
    try:
        _await(port)
        yield port, server
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(timeout=20)


def _await(port: int) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/health/live", timeout=2).close()
            return
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)


def processor_seconds(pids: list[int]) -> float:
    """User and system time of processes and their living descendants."""
    import psutil

    total = 0.0
    for pid in pids:
        process = psutil.Process(pid)
        for one in [process, *process.children(recursive=True)]:
            times = one.cpu_times()
            total += times.user + times.system
    return total
