"""Steps in which jobs run: polled for by many at once, of three kinds, and through the death of a miner."""

import hashlib
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from django.conf import settings

from aitbc.demo import orders
from aitbc.demo.client import JSON
from aitbc.demo.failure import Failed, require, wait_for
from aitbc.demo.miners import REGION, Daemon, family, survivors
from aitbc.demo.orders import Order
from aitbc.demo.pollers import Contest, Seller, contend
from aitbc.demo.report import Step
from aitbc.demo.stage import PROVIDERS, Stage, processors
from apps.gpu.runtimes.contract import Context

POLLERS: Final = 16
CONTEST_REGION: Final = "demo-contest"
_LONG_N: Final = 1024
_MINERS_LOG: Final = "log/demo-miner-*.log"


def contest(stage: Stage, step: Step) -> None:
    """Many connections of two miners poll for the same queue of tiny jobs and do them."""
    stage.daemons = [
        Daemon(number=n, cpu=cpu, key=stage.state.people[name]["key"], var=stage.var, api=stage.apis[name])
        for n, (name, cpu) in enumerate(zip(PROVIDERS, processors(), strict=True), start=1)
    ]
    stage.since = (datetime.now(UTC) - timedelta(seconds=5)).isoformat().replace("+00:00", "Z")
    tiny = [orders.matmul(region=CONTEST_REGION, n=8, max_price="0.02") for _ in range(stage.size.tiny)]
    stage.client.submit([order.body for order in tiny])
    stage.tiny = [order.id for order in tiny]
    stage.tell(f"{len(tiny)} jobs queued; {POLLERS} connections start to poll")
    outcome = _contend(stage)
    outcome.require_each_once()
    _require_done_at_once(stage)
    stage.report.pollers = {
        "pollers": POLLERS,
        "jobs": len(tiny),
        "leased_more_than_once": len(outcome.leased_more_than_once()),
        "seconds": round(outcome.seconds, 2),
        "jobs_per_second": round(len(tiny) / outcome.seconds, 1),
    }
    step.detail = (
        f"{len(tiny)} jobs, {POLLERS} HTTP pollers: each leased and done exactly once, "
        f"{stage.report.pollers['jobs_per_second']} jobs/s"
    )


def _contend(stage: Stage) -> Contest:
    sellers = [Seller(each, url=stage.url, region=CONTEST_REGION, slots=POLLERS) for each in stage.daemons]
    for seller in sellers:
        seller.register()
    try:
        with tempfile.TemporaryDirectory(prefix="aitbc-demo-") as folder:
            return contend(
                sellers,
                jobs=stage.tiny,
                connections=POLLERS,
                context=Context(Path(folder), {}),
                seconds=180,
                tell=stage.tell,
            )
    finally:
        for seller in sellers:
            seller.leave()


def _require_done_at_once(stage: Stage) -> None:
    """The platform's own account of the same jobs."""
    listed = stage.client.jobs(since=stage.since)
    wrong = [job for job in stage.tiny if (listed[job]["state"], listed[job]["attempts"]) != ("completed", 1)]
    require(not wrong, f"{len(wrong)} jobs were not completed at the first try, e.g. {wrong[:1]}")


def run_jobs(stage: Stage, step: Step) -> None:
    """Real work of three kinds; every output is checked against our own computation."""
    wanted = orders.mixed(stage.size.per_kind, region=REGION)
    wanted += [orders.matmul(region=settings.GPU_WORKER_REGION) for _ in range(stage.size.local)]
    done_by = _perform(stage, wanted)
    kinds = Counter(order.kind for order in wanted)
    step.detail = (
        f"{len(wanted)} jobs right ({', '.join(f'{count} {kind}' for kind, count in kinds.items())}); "
        f"done by {', '.join(f'{name} {count}' for name, count in sorted(done_by.items()))}"
    )


def _perform(stage: Stage, wanted: list[Order]) -> Counter[str]:
    contents = {content for order in wanted for content in order.artifacts}
    for content in contents:
        sha256 = hashlib.sha256(content).hexdigest()
        stage.client.send("PUT", f"/v1/artifacts/{sha256}", 201, content=content)
    _submit(stage, wanted)
    stage.tell(f"{len(contents)} artifacts uploaded, {len(wanted)} jobs submitted")
    return _finish(stage, wanted)


def _submit(stage: Stage, wanted: list[Order]) -> None:
    stage.client.submit([order.body for order in wanted])
    stage.orders += wanted


def _finish(stage: Stage, wanted: list[Order]) -> Counter[str]:
    """Wait for the jobs, check outputs and commitments; counts the jobs of each miner."""
    stage.collect([order.id for order in wanted], "jobs completed", log=_MINERS_LOG)
    names = {_profile(daemon)["id"]: daemon.name for daemon in stage.daemons}
    done_by: Counter[str] = Counter()
    for order in wanted:
        result, receipt = stage.results[order.id]["result"], stage.results[order.id]["receipt"]
        problem = order.check(result["output"]) or orders.check_commitments(
            receipt, given=order.input, output=result["output"]
        )
        require(problem is None, f"{order.kind} {order.id}: {problem}")
        done_by[names.get(receipt["statement"]["miner"], "the platform's Celery worker")] += 1
    return done_by


def _profile(daemon: Daemon) -> JSON:
    return daemon.api.get("/v1/miners/me")


def kill_a_miner(stage: Stage, step: Step) -> None:
    """`kill -9` for the daemon that runs a long job; the other one must finish it."""
    order, victim = _catch_at_work(stage)
    processes = family(victim.pid)
    begun = time.monotonic()
    victim.stop(signal.SIGKILL)
    stage.tell(f"kill -9 {processes[0].pid}: {victim.name} dies while it runs job {order.id}")
    left = survivors(processes, seconds=10)
    require(not left, f"the dead miner left processes behind: {', '.join(left)}", log=victim.log)
    lost = _wait_for_state(stage, order, ("leased", "running"), what="the job is requeued", log="log/worker.log")
    stage.tell(f"requeued after {time.monotonic() - begun:.0f} s; now {lost['state']}")
    (finisher,) = _finish(stage, [order])
    attempts = stage.client.job(order.id)["attempts"]
    require(attempts == 2, f"the job took {attempts} attempts, not 2")
    require(finisher != victim.name, f"{finisher} finished the job: it was killed")
    victim.start(stage.url)  # it comes back for the rest
    step.detail = (
        f"{victim.name} killed at work, the job finished by {finisher} "
        f"{time.monotonic() - begun:.0f} s later; nothing of the dead miner is left"
    )


def _catch_at_work(stage: Stage) -> tuple[Order, Daemon]:
    """A job that runs right now, and its miner. A machine faster than it proved gets more to do."""
    profiles = [_profile(daemon) for daemon in stage.daemons]
    by_id = {profile["id"]: daemon for profile, daemon in zip(profiles, stage.daemons, strict=True)}
    speed = min(device["tflops"] for profile in profiles for device in profile["devices"])
    repeats = round(stage.size.work_seconds * speed * 1e12 / (2 * _LONG_N**3))
    for factor in (1, 3, 9):
        times = max(1, min(1000, factor * repeats))
        order = orders.matmul(region=REGION, n=_LONG_N, repeats=times, max_price="2")
        _submit(stage, [order])
        found = _wait_for_state(stage, order, ("queued", "leased"), what="a miner starts the long job", log=_MINERS_LOG)
        time.sleep(0.5)  # so that it is killed in the middle, not at the start
        if stage.client.job(order.id)["state"] == "running":
            return order, by_id[found["miner_id"]]
        _finish(stage, [order])
    raise Failed("no job runs long enough on this machine for its miner to be killed meanwhile")


def _wait_for_state(stage: Stage, order: Order, before: Sequence[str], *, what: str, log: str) -> JSON:
    """The job's document once it has left the states `before`, or has them in a later attempt."""

    def look() -> JSON | None:
        found = stage.client.job(order.id)
        return found if found["attempts"] > 1 or found["state"] not in before else None

    return wait_for(look, seconds=60, what=what, log=log, pause=0.1)
