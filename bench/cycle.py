"""End-to-end cycles over HTTP: submit, poll, result, read result, read receipt; one request a step.

The load shape of the comparison: as many client tasks as miners, each pair submitting one job and then
polling until its own job is done; a poll may hand out another pair's job, which is done all the same.
"""

import asyncio
import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import Any

from aitbc.chain import signing
from aitbc.core import money
from apps.gpu import statements
from bench.http import Connection

INPUT = {"n": 8, "seed": 1, "dtype": "float32"}
OUTPUT = {"n": 8, "seconds": 0.001, "tflops": 0.5, "root": "0x" + "ab" * 32}
PRICE = {"amount": "0.01", "asset": "AIT"}


@dataclass
class Seller:
    token: str
    private_key: Any  # coincurve key, prepared once
    domain: Any

    def report(self, lease: dict[str, Any]) -> dict[str, Any]:
        salt = bytes.fromhex(lease["salt"][2:])
        statement = statements.WorkStatement(
            job=lease["id"],
            kind=lease["kind"],
            client=lease["client"],
            miner=lease["miner"],
            attempt=lease["attempt"],
            lease="0x" + statements.lease_hash(lease["lease_token"]).hex(),
            input_commitment="0x" + statements.commitment(salt=salt, value=lease["input"]).hex(),
            output_commitment="0x" + statements.commitment(salt=salt, value=OUTPUT).hex(),
            unit_price=money.units(lease["unit_price"]["amount"], 18),
            max_units=lease["max_units"],
        )
        digest = signing.digest(self.domain, statements.WORK_STATEMENT, statement.values())
        return {
            "lease_token": lease["lease_token"],
            "output": OUTPUT,
            "statement_signature": signing.sign(self.private_key, digest),
        }


@dataclass
class Run:
    """What one run saw; every latency in seconds."""

    cycles: list[float] = field(default_factory=list)
    steps: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    errors: Counter[str] = field(default_factory=Counter)
    leased: Counter[str] = field(default_factory=Counter)
    done: set[str] = field(default_factory=set)
    seconds: float = 0.0

    async def call(self, connection: Connection, name: str, expected: int, *args: Any, **kwargs: Any) -> Any:
        begun = time.perf_counter()
        status, body = await connection.request(*args, **kwargs)
        self.steps[name].append(time.perf_counter() - begun)
        if status != expected:
            self.errors[f"{name}:{status}"] += 1
            return None
        return body

    def report(self, pairs: int) -> dict[str, Any]:
        return {
            "pairs": pairs,
            "cycles": len(self.cycles),
            "cycles_per_s": round(len(self.cycles) / self.seconds, 2),
            "p50_ms": quantile(self.cycles, 0.5),
            "p95_ms": quantile(self.cycles, 0.95),
            "p99_ms": quantile(self.cycles, 0.99),
            "steps": {
                name: {f"p{int(q * 100)}_ms": quantile(times, q) for q in (0.5, 0.95, 0.99)}
                for name, times in self.steps.items()
            },
            "errors": dict(self.errors),
            "jobs_leased": len(self.leased),
            "double_leased": sum(1 for count in self.leased.values() if count > 1),
        }


def quantile(values: list[float], q: float) -> float | None:
    return round(sorted(values)[min(len(values) - 1, int(len(values) * q))] * 1000, 2) if values else None


async def single(port: int, clients: list[str], sellers: list[Seller], seconds: float) -> Run:
    """One request per step."""
    run = Run()
    begun = time.perf_counter()
    await asyncio.gather(*[_pair(run, port, clients[i], s, begun + seconds, i) for i, s in enumerate(sellers)])
    run.seconds = time.perf_counter() - begun
    return run


async def _pair(run: Run, port: int, client: str, seller: Seller, end: float, number: int) -> None:
    buys, sells = await Connection.open("127.0.0.1", port), await Connection.open("127.0.0.1", port)
    count = 0
    while time.perf_counter() < end:
        begun, count = time.perf_counter(), count + 1
        key = f"idempotency-key: {begun}-{number}-{count}\r\n"
        body = {"kind": "bench.matmul", "input": INPUT, "max_price": PRICE}
        job = await run.call(buys, "submit", 201, "POST", "/v1/jobs", client, body, key)
        if job is None:
            continue
        await _work_until(run, sells, seller, job["id"], end + 5)
        if job["id"] not in run.done:
            run.errors["never_done"] += 1
            continue
        if await run.call(buys, "read", 200, "GET", f"/v1/jobs/{job['id']}/result", client):
            await run.call(buys, "receipt", 200, "GET", f"/v1/jobs/{job['id']}/receipt", client)
            run.cycles.append(time.perf_counter() - begun)


async def _work_until(run: Run, connection: Connection, seller: Seller, mine: str, end: float) -> None:
    while mine not in run.done and time.perf_counter() < end:
        polled = await run.call(connection, "poll", 200, "POST", "/v1/miners/poll", seller.token, {"max_jobs": 1})
        if not polled or not polled["jobs"]:
            run.errors["empty_poll"] += 1
            await asyncio.sleep(0.005)
            continue
        (lease,) = polled["jobs"]
        run.leased[lease["id"]] += 1
        path = f"/v1/miners/{lease['id']}/result"
        if await run.call(connection, "result", 200, "POST", path, seller.token, seller.report(lease)):
            run.done.add(lease["id"])


async def batched(port: int, clients: list[str], sellers: list[Seller], seconds: float, size: int) -> Run:
    """The same cycle by the batch calls: jobs/batch, poll with max_jobs, results, jobs/results."""
    run = Run()
    begun = time.perf_counter()
    await asyncio.gather(*[_batch_pair(run, port, clients[i], s, begun + seconds, size) for i, s in enumerate(sellers)])
    run.seconds = time.perf_counter() - begun
    return run


async def _batch_pair(run: Run, port: int, client: str, seller: Seller, end: float, size: int) -> None:
    from aitbc.core.ids import uuid7

    buys, sells = await Connection.open("127.0.0.1", port), await Connection.open("127.0.0.1", port)
    while time.perf_counter() < end:
        begun = time.perf_counter()
        ids = [str(uuid7()) for _ in range(size)]
        jobs = [{"id": i, "kind": "bench.matmul", "input": INPUT, "max_price": PRICE} for i in ids]
        if not await run.call(buys, "submit", 207, "POST", "/v1/jobs/batch", client, {"jobs": jobs}):
            continue
        while not run.done.issuperset(ids) and time.perf_counter() < end + 5:
            await _work_batch(run, sells, seller, size)
        query = "&".join(f"id={i}" for i in ids)
        answer = await run.call(buys, "read", 207, "GET", f"/v1/jobs/results?{query}", client)
        complete = sum(1 for item in answer["items"] if item["status"] == 200) if answer else 0
        run.cycles += [time.perf_counter() - begun] * complete
        if complete < size:
            run.errors["incomplete"] += size - complete


async def _work_batch(run: Run, connection: Connection, seller: Seller, size: int) -> None:
    body = {"max_jobs": min(size, 64)}
    polled = await run.call(connection, "poll", 200, "POST", "/v1/miners/poll", seller.token, body)
    if not polled or not polled["jobs"]:
        run.errors["empty_poll"] += 1
        await asyncio.sleep(0.005)
        return
    for lease in polled["jobs"]:
        run.leased[lease["id"]] += 1
    reports = [seller.report(lease) | {"job_id": lease["id"]} for lease in polled["jobs"]]
    answer = await run.call(connection, "result", 207, "POST", "/v1/miners/results", seller.token, {"results": reports})
    for lease, item in zip(polled["jobs"], answer["items"] if answer else [], strict=False):
        if item["status"] == 200:
            run.done.add(lease["id"])
        else:
            run.errors[f"result item:{item['status']}"] += 1
