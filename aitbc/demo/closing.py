"""Steps that end it: receipts without the platform, a restart that loses nothing, and nothing left behind."""

import random
from typing import Any, Final

from aitbc import stack
from aitbc.demo import offline, orders
from aitbc.demo.failure import require, wait_for
from aitbc.demo.miners import survivors
from aitbc.demo.opening import restore_parameters, wait_for_miner
from aitbc.demo.report import Step
from aitbc.demo.stage import REGION, Stage
from aitbc.stack import platform

_RESTART_SAMPLE: Final = 5  # receipts that are fetched again, byte for byte


def verify_offline(stage: Stage, step: Step) -> None:
    """Platform and stores are stopped; then the command judges every receipt, and every spoilt copy."""
    for daemon in stage.daemons:
        wait_for_miner(daemon)  # the killed one is on its way back
    restore_parameters(stage)
    stage.before_restart = _remembered(stage)
    stage.remember_processes()
    platform.down()
    running = [service.name for service in stack.status() if service.running]
    require(not running, f"still running: {', '.join(running)}")
    stage.tell("platform and stores are down")
    offline.require_all_valid(stage.files)
    stage.report.receipts_verified = len(stage.files)
    stage.tell(f"{len(stage.files)} receipts verified")
    tried = offline.require_all_refused(_spoilt(stage), stage.folder / "spoilt")
    step.detail = (
        f"{len(stage.files)} receipts valid and anchored with every store down; "
        f"{tried} copies with one changed byte all refused"
    )


def _spoilt(stage: Stage) -> list[bytes]:
    """Each byte of some receipts of different kinds, and one byte of each of the others."""
    contents = {file.stem: file.read_bytes() for file in stage.files}
    kinds = {order.kind: order.id for order in stage.orders}
    whole = list(kinds.values())[: stage.size.flipped]
    spoilt = [copy for job in whole for copy in offline.every_byte_changed(contents[job])]
    rest = [content for job, content in contents.items() if job not in whole]
    return spoilt + [offline.change_byte(content, random.randrange(len(content))) for content in rest]


def restart(stage: Stage, step: Step) -> None:
    """Everything is as it was, and the miners that stayed up all the while go on working."""
    stage.start_platform()
    now = _remembered(stage)
    for name, before in stage.before_restart.items():
        require(now[name] == before, f"{name} changed by the restart: {before} became {now[name]}")
    order = orders.matmul(region=REGION)
    stage.client.submit(order.body)
    stage.tell("the same data; one more job for the miners that outlived the platform")
    found = wait_for(
        lambda: stage.client.results([order.id]) or None,
        seconds=120,
        what="a job completes after the restart",
        log=stage.log("demo-miner-*.log"),
    )
    problem = order.check(found[order.id]["result"]["output"])
    require(problem is None, str(problem))
    verdict = stage.client.verify(found[order.id]["receipt"])
    require(verdict["valid"], f"its receipt: {verdict}")
    step.detail = f"{', '.join(now)} unchanged; a new job done by a miner that outlived the platform"


def _remembered(stage: Stage) -> dict[str, Any]:
    """What the client can see of this run."""
    ours = set(stage.job_ids)
    jobs = {job["id"]: job for job in stage.client.jobs(since=stage.since) if job["id"] in ours}
    requeued = [job for job in jobs.values() if job["attempts"] > 1]
    stage.report.requeued = len(requeued)
    settlement = stage.report.settlement
    assert settlement is not None  # set by the step before
    return {
        "jobs": jobs,
        "accounts": stage.client.get("/v1/accounts"),
        "deposits": stage.client.get("/v1/deposits"),
        "settlement": stage.client.get(f"/v1/settlements/{settlement['id']}"),
        "receipts": [stage.client.receipt(job) for job in stage.job_ids[:_RESTART_SAMPLE]],
    }


def stop(stage: Stage, step: Step) -> None:
    """Miners sign off, the platform goes down; no process that was started is left."""
    stage.remember_processes()
    try:
        for daemon in stage.daemons:
            daemon.stop()
        if platform.status() is not None:
            restore_parameters(stage)
    finally:
        for api in stage.apis.values():
            api.close()
        platform.down()
    left = survivors(stage.seen, seconds=15)
    require(not left, f"left behind: {', '.join(left)}")
    step.detail = f"{len(stage.seen)} processes ended, none left"
