"""Steps in which jobs run: polled for by many at once, of three kinds, and through the death of a miner."""

import hashlib
import tempfile
import time
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from django.conf import settings

from aitbc.core.ids import uuid7
from aitbc.demo import orders
from aitbc.demo.client import JSON, PENDING
from aitbc.demo.failure import Failed, require, wait_for
from aitbc.demo.miners import Daemon, survivors
from aitbc.demo.opening import prepare_daemons
from aitbc.demo.orders import Order
from aitbc.demo.pollers import Contest, Seller, contend
from aitbc.demo.report import Step
from aitbc.demo.stage import CONTEST_REGION, POLLERS, REGION, Stage
from apps.gpu.runtimes.contract import Context

_LONG_N: Final = 1024
_LONG_PRICE: Final = "2"


def contest(stage: Stage, step: Step) -> None:
    """Many connections of two miners poll for the same queue of tiny jobs and do them."""
    prepare_daemons(stage)
    stage.since = (datetime.now(UTC) - timedelta(seconds=5)).isoformat().replace("+00:00", "Z")
    bodies = [_tiny() for _ in range(stage.size.tiny)]
    stage.tiny = [job["id"] for job in stage.client.submit_all(bodies)]
    stage.tell(f"{len(stage.tiny)} jobs queued; {POLLERS} connections start to poll")
    outcome = _contend(stage)
    problem = outcome.verdict() or _wrong_jobs(stage)
    require(problem is None, str(problem), log=stage.log("web.log"))
    stage.report.pollers = {
        "pollers": POLLERS,
        "jobs": len(stage.tiny),
        "leased_once": sum(1 for count in outcome.leases.values() if count == 1),
        "leased_more_than_once": sum(1 for count in outcome.leases.values() if count > 1),
        "empty_polls": outcome.empty,
        "seconds": round(outcome.seconds, 2),
        "jobs_per_second": round(len(stage.tiny) / outcome.seconds, 1),
    }
    step.detail = (
        f"{len(stage.tiny)} jobs, {POLLERS} HTTP pollers: each leased and done exactly once, "
        f"{stage.report.pollers['jobs_per_second']} jobs/s"
    )


def _tiny() -> JSON:
    return {
        "id": str(uuid7()),
        "kind": "bench.matmul",
        "input": orders.TINY,
        "constraints": {"region": CONTEST_REGION},
        "max_price": {"amount": "0.02", "asset": "AIT"},
    }


def _contend(stage: Stage) -> Contest:
    sellers = [
        Seller(daemon, url=stage.url, region=CONTEST_REGION, slots=POLLERS) for daemon in stage.daemons
    ]
    for seller in sellers:
        seller.register()
    try:
        with tempfile.TemporaryDirectory(prefix="aitbc-demo-") as folder:
            return contend(
                sellers,
                jobs=set(stage.tiny),
                connections=POLLERS,
                context=Context(Path(folder), {}),
                seconds=180,
                tell=stage.tell,
            )
    finally:
        for seller in sellers:
            seller.leave()


def _wrong_jobs(stage: Stage) -> str | None:
    """The platform's own account of the same jobs."""
    listed = {job["id"]: job for job in stage.client.jobs(since=stage.since)}
    wrong = [job for job in stage.tiny if (listed[job]["state"], listed[job]["attempts"]) != ("completed", 1)]
    return (
        f"{len(wrong)} jobs were not completed at the first try, e.g. {listed[wrong[0]]}" if wrong else None
    )


def run_jobs(stage: Stage, step: Step) -> None:
    """Real work of three kinds; every output is checked against our own computation."""
    wanted = orders.mixed(stage.size.per_kind, region=REGION)
    wanted += [orders.matmul(region=settings.GPU_WORKER_REGION) for _ in range(stage.size.local)]
    _submit(stage, wanted)
    _wait_until_done(stage, wanted)
    done_by = _check(stage, wanted)
    kinds = Counter(order.kind for order in wanted)
    step.detail = (
        f"{len(wanted)} jobs right ({', '.join(f'{count} {kind}' for kind, count in kinds.items())}); "
        f"done by {', '.join(f'{name} {count}' for name, count in sorted(done_by.items()))}"
    )


def _submit(stage: Stage, wanted: list[Order]) -> None:
    contents = {content for order in wanted for content in order.artifacts}
    for content in contents:
        stage.client.upload(hashlib.sha256(content).hexdigest(), content)
    stage.client.submit_all([order.body for order in wanted])
    stage.orders += wanted
    stage.tell(f"{len(contents)} artifacts uploaded, {len(wanted)} jobs submitted")


def _wait_until_done(stage: Stage, wanted: list[Order], *, seconds: float = 240) -> None:
    ids = [order.id for order in wanted]
    deadline, told = time.monotonic() + seconds, 0
    while len(found := stage.client.results(ids)) < len(ids):
        if len(found) > told:
            stage.tell(f"{len(found)} of {len(ids)} jobs completed")
        told = len(found)
        if time.monotonic() > deadline:
            raise Failed(f"only {told} of {len(ids)} jobs completed", log=stage.log("demo-miner-*.log"))
        time.sleep(1)
    stage.results |= found


def _check(stage: Stage, wanted: list[Order]) -> Counter[str]:
    """Outputs, commitments, and what the client paid; counts the jobs of each miner."""
    names = {daemon.api.get("/v1/miners/me")["id"]: daemon.name for daemon in stage.daemons}
    done_by: Counter[str] = Counter()
    for order in wanted:
        result, receipt = stage.results[order.id]["result"], stage.results[order.id]["receipt"]
        problem = order.check(result["output"]) or orders.check_commitments(
            receipt, given=order.input, output=result["output"]
        )
        require(problem is None, f"{order.kind} {order.id}: {problem}")
        done_by[names.get(receipt["statement"]["miner"], "the platform's Celery worker")] += 1
    return done_by


def kill_a_miner(stage: Stage, step: Step) -> None:
    """`kill -9` for the daemon that runs a long job; the other one must finish it."""
    job, victim = _catch_at_work(stage)
    family = victim.family()
    begun = time.monotonic()
    victim.kill()
    stage.tell(f"kill -9 {family[0].pid}: {victim.name} dies while it runs job {job}")
    left = survivors(family, seconds=10)
    require(not left, f"the dead miner left processes behind: {', '.join(left)}", log=str(victim.log))
    lost = wait_for(
        lambda: _unless_running(stage, job),
        seconds=60,
        what="the job is requeued",
        log=stage.log("worker.log"),
    )
    stage.tell(f"requeued after {time.monotonic() - begun:.0f} s; now {lost['state']}")
    order = next(order for order in stage.orders if order.id == job)
    _wait_until_done(stage, [order])
    ended = stage.client.job(job)
    require(ended["attempts"] == 2, f"the job took {ended['attempts']} attempts, not 2")
    (finisher,) = _check(stage, [order])
    require(finisher not in (victim.name, ""), f"{finisher} finished the job: it was killed")
    victim.start(stage.url)  # it comes back for the rest
    step.detail = (
        f"{victim.name} killed at work, the job finished by {finisher} "
        f"{time.monotonic() - begun:.0f} s later; nothing of the dead miner is left"
    )


def _catch_at_work(stage: Stage) -> tuple[str, Daemon]:
    """A job that runs right now, and its miner. A machine faster than it proved gets more to do."""
    by_id = {daemon.api.get("/v1/miners/me")["id"]: daemon for daemon in stage.daemons}
    speed = min(device["tflops"] for d in stage.daemons for device in d.api.get("/v1/miners/me")["devices"])
    repeats = round(stage.size.work_seconds * speed * 1e12 / (2 * _LONG_N**3))
    for factor in (1, 3, 9):
        order = orders.matmul(region=REGION, n=_LONG_N, repeats=max(1, min(1000, factor * repeats)))
        job = stage.client.submit(order.body | {"max_price": {"amount": _LONG_PRICE, "asset": "AIT"}})["id"]
        stage.orders.append(order)
        found = wait_for(
            lambda job=job: _once_running(stage, job),  # type: ignore[misc]  # bound at once
            seconds=60,
            what="a miner starts the long job",
            log=stage.log("demo-miner-*.log"),
            pause=0.1,
        )
        time.sleep(0.5)  # so that it is killed in the middle, not at the start
        if stage.client.job(job)["state"] == "running":
            return job, by_id[found["miner_id"]]
        _wait_until_done(stage, [order])
    raise Failed("no job runs long enough on this machine for its miner to be killed meanwhile")


def _once_running(stage: Stage, job: str) -> JSON | None:
    found = stage.client.job(job)
    return None if found["state"] in ("queued", "leased") else found


def _unless_running(stage: Stage, job: str) -> JSON | None:
    """The job's document once its first lease is over."""
    found = stage.client.job(job)
    return found if found["attempts"] > 1 or found["state"] not in PENDING[1:] else None
