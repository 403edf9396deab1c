"""Webhooks from the outbox to a receiver in a process of its own. `make bench NAME=webhooks`.

The relay and the sender run as `make up` runs them. First a backlog of events is written and the time is
taken until the receiver has the last of them; then events come at a modest rate, and their lag is taken from
the transaction that tells of them to the arrival. Ends with one JSON line.
"""

import argparse
import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from bench import platform

ENDPOINTS = 10
_TELL = """
SELECT webhooks_tell('job.completed', 'job:' || uuidv7(), ARRAY[o], jsonb_build_object(
         'id', uuidv7(), 'kind', 'bench.matmul', 'state', 'completed', 'created_at', now(),
         'finished_at', now(), 'error', NULL, 'at', %s::float8))
  FROM generate_series(1, %s::int) n, LATERAL (SELECT (%s::uuid[])[1 + n %% %s]) x(o)
"""


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--backlog", type=int, default=100_000)
    options.add_argument("--rate", type=int, default=100, help="events a second while the lag is taken")
    options.add_argument("--seconds", type=int, default=20)
    arguments = options.parse_args()
    platform.prepare()
    import django

    django.setup()
    from bench.results import at_least, under

    with _process("-m", "bench.sink", str(port := _free_port())) as _:
        _await(port)
        owners = _register(port)
        _tell(owners, arguments.backlog)
        with _process("manage.py", "run_relay"), _process("manage.py", "run_webhooks"):
            seconds = _drain(port, arguments.backlog)
            rate = round(arguments.backlog / seconds)
            print(f"{arguments.backlog} delivered in {seconds:.1f} s", flush=True)
            told = _modest(port, owners, arguments.rate, arguments.seconds, arguments.backlog)
    lags = sorted(told["lags"])
    rows = [
        at_least("deliveries, from the outbox to the receiver", rate, "1/s", 2000, 1),
        under(f"a backlog of {arguments.backlog} events", round(seconds, 1), "s", 120),
        under(f"lag at {arguments.rate} events/s, p50", round(lags[len(lags) // 2], 3), "s", 1),
        under(f"lag at {arguments.rate} events/s, p99", round(lags[len(lags) * 99 // 100], 3), "s", 1),
        under("deliveries that came twice", told["repeats"], "", 1),
    ]
    print(json.dumps({"name": "webhooks", "results": rows}))
    return 0 if all(row["ok"] for row in rows) else 1


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def _process(*command: str) -> Iterator[None]:
    log = (platform.ROOT / "var" / "log" / "bench-webhooks.log").open("ab")
    started = subprocess.Popen(
        [sys.executable, *command], cwd=platform.ROOT, stdout=log, stderr=log, env=os.environ.copy()
    )
    try:
        yield
    finally:
        started.terminate()
        started.wait(timeout=30)


def _ask(port: int) -> dict[str, Any]:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=10) as answer:
        return dict(json.loads(answer.read()))


def _await(port: int) -> None:
    for _ in range(100):
        try:
            _ask(port)
            return
        except OSError:
            time.sleep(0.1)
    sys.exit("the receiver did not start")


def _register(port: int) -> list[str]:
    from aitbc.core import db
    from aitbc.core.testing import cast

    owners = [cast.person(f"owner{n}").id for n in range(ENDPOINTS)]
    for owner in owners:
        url = f"http://127.0.0.1:{port}/hook"
        db.rows("SELECT webhooks_create(%s, %s, '{}', %s)", (owner, url, os.urandom(16)))
    return [str(owner) for owner in owners]


def _tell(owners: list[str], count: int) -> None:
    from aitbc.core import db

    for start in range(0, count, 5000):
        db.rows(_TELL, (None, min(5000, count - start), owners, len(owners)))
    db.rows("ANALYZE core_outbox")


def _drain(port: int, count: int) -> float:
    """Seconds from the first arrival on, by which the start of the processes is not counted."""
    while _ask(port)["events"] == 0:
        time.sleep(0.02)
    begun, before = time.perf_counter(), _ask(port)["events"]
    while (seen := _ask(port)["events"]) < count:
        if time.perf_counter() - begun > 600:
            sys.exit(f"only {seen} of {count} came")
        time.sleep(0.2)
    return (time.perf_counter() - begun) * count / (count - before)


def _modest(port: int, owners: list[str], rate: int, seconds: int, before: int) -> dict[str, Any]:
    from aitbc.core import db

    due = time.time()
    for number in range(rate * seconds):
        db.rows(_TELL, (time.time(), 1, [owners[number % len(owners)]], 1))
        due += 1 / rate
        time.sleep(max(0, due - time.time()))
    while _ask(port)["events"] < before + rate * seconds:
        time.sleep(0.1)
    return _ask(port)


if __name__ == "__main__":
    sys.exit(main())
