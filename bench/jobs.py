"""Job cycles through the whole platform over HTTP. `make bench NAME=jobs`.

Eight clients and eight miners, tiny jobs, against the monolith's measured 61.8 cycles/s (its best, two
workers on PostgreSQL, two cores shared with database and generator). Ends with one JSON line.
"""

import argparse
import asyncio
import json
import sys
import time
from typing import Any

import uvloop

from bench import platform
from bench.results import at_least, under

MONOLITH_CYCLES = 61.8
PAIRS = 8


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--seconds", type=float, default=10)
    options.add_argument("--batch", type=int, default=50)
    options.add_argument("--processes", type=int, default=2)
    options.add_argument("--skip-waiting", action="store_true")
    arguments = options.parse_args()
    platform.prepare()
    import django

    django.setup()
    clients, sellers = _people()
    with platform.web(arguments.processes) as (port, server):
        single = _measure("single", port, clients, sellers, server.pid, arguments.seconds)
        batched = _measure("batched", port, clients, sellers, server.pid, arguments.seconds, arguments.batch)
        waiting = None if arguments.skip_waiting else asyncio.run(_waiting(port, sellers))
    _audit()
    from bench import pgbench

    raw = pgbench.cycles_per_second()
    results = _results(single, batched, waiting, raw)
    print(json.dumps({"name": "jobs", "results": results}))
    return 0 if all(r["ok"] for r in results) else 1


def _people() -> tuple[list[str], list[Any]]:
    import coincurve
    from django.conf import settings

    from aitbc.core.testing import cast
    from apps.gpu import statements
    from bench.cycle import Seller

    clients = [cast.person(f"client{i}") for i in range(PAIRS)]
    for client in clients:
        cast.fund(client.id, 10**12 * cast.AIT)
    found = [cast.seller(f"miner{i}", concurrency=1000, price="0.000001") for i in range(PAIRS)]
    domain = statements.domain(settings.CHAIN_ID)
    sellers = [Seller(s.token, coincurve.PrivateKey(s.private_key), domain) for s in found]
    return [client.token for client in clients], sellers


def _measure(
    name: str, port: int, clients: list[str], sellers: list[Any], web: int, seconds: float, size: int = 0
) -> dict[str, Any]:
    from django.db import connections

    from bench import cycle

    connection = connections["owner"]

    def run(duration: float) -> Any:
        work = (
            cycle.batched(port, clients, sellers, duration, size)
            if size
            else cycle.single(port, clients, sellers, duration)
        )
        return uvloop.run(work)

    run(2)  # connections, prepared plans, caches
    connection.cursor().execute("ANALYZE")  # what autovacuum does within the first minute
    before = _shares(web)
    outcome = run(seconds)
    shares = {who: round((after - before[who]) / outcome.seconds, 2) for who, after in _shares(web).items()}
    report = {"what": name, **outcome.report(PAIRS), "cores_used": shares}
    print(json.dumps(report), flush=True)
    return report


def _shares(web: int) -> dict[str, float]:
    """Processor seconds so far of generator, web and PostgreSQL."""
    import os

    from aitbc import stack

    postgres = next(s.pid for s in stack.status() if s.name == "postgres")
    assert postgres is not None
    return {
        "generator": platform.processor_seconds([os.getpid()]) - platform.processor_seconds([web]),
        "web": platform.processor_seconds([web]),
        "postgresql": platform.processor_seconds([postgres]),
    }


async def _waiting(port: int, sellers: list[Any]) -> dict[str, Any]:
    """256 connections, 200 of them in a waiting poll: does the platform still answer?"""
    from bench.cycle import quantile
    from bench.http import Connection

    connections = await asyncio.gather(*[Connection.open("127.0.0.1", port) for _ in range(256)])
    end = time.perf_counter() + 10
    times: list[float] = []
    refused = 0

    async def wait(connection: Any, token: str) -> None:
        nonlocal refused
        while time.perf_counter() < end:
            status, _ = await connection.request("POST", "/v1/miners/poll", token, {"wait_seconds": 10})
            refused += status >= 500
            await asyncio.sleep(1)

    async def live(connection: Any) -> None:
        while time.perf_counter() < end:
            begun = time.perf_counter()
            status, _ = await connection.request("GET", "/health/live")
            times.append(time.perf_counter() - begun)
            refused_now = status != 200
            assert not refused_now
            await asyncio.sleep(0.01)

    waiters = [wait(c, sellers[i % PAIRS].token) for i, c in enumerate(connections[:200])]
    await asyncio.gather(*waiters, *[live(c) for c in connections[200:]])
    report = {"what": "waiting", "health_requests": len(times), "p99_ms": quantile(times, 0.99), "refused": refused}
    print(json.dumps(report), flush=True)
    return report


def _audit() -> None:
    from apps.trading.services.audit import audit

    if findings := audit():
        sys.exit(f"the ledger is not sound after the benchmark: {findings}")


def _results(
    single: dict[str, Any], batched: dict[str, Any], waiting: dict[str, Any] | None, raw: float
) -> list[dict[str, Any]]:
    slowest = max(step["p95_ms"] for step in single["steps"].values())
    doubles = single["double_leased"] + batched["double_leased"]
    rows = [
        at_least("cycles, one request a step", single["cycles_per_s"], "1/s", MONOLITH_CYCLES, 4),
        at_least("cycles, batch calls", batched["cycles_per_s"], "1/s", MONOLITH_CYCLES, 10),
        at_least("cycles by HTTP to the same statements under pgbench", single["cycles_per_s"], "1/s", raw, None),
        under("p95 of the slowest endpoint", slowest, "ms", 100),
        {
            "what": "jobs leased twice",
            "figure": doubles,
            "unit": "jobs",
            "reference": 0,
            "ratio": None,
            "bar": "0",
            "ok": doubles == 0,
        },
    ]
    if waiting:
        rows.append(under("/health/live p99 with 200 waiting polls", waiting["p99_ms"], "ms", 1000))
    return rows


if __name__ == "__main__":
    sys.exit(main())
