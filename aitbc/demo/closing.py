"""Steps that end it: receipts without the platform, a restart that loses nothing, and nothing left behind."""

import random

from aitbc import stack
from aitbc.demo import offline, orders
from aitbc.demo.client import JSON
from aitbc.demo.failure import require
from aitbc.demo.miners import REGION, survivors
from aitbc.demo.opening import restore_parameters
from aitbc.demo.report import Step
from aitbc.demo.stage import Stage
from aitbc.stack import platform

_RESTART_SAMPLE = 5  # receipts that are fetched again, byte for byte


def verify_offline(stage: Stage, step: Step) -> None:
    """Platform and stores are stopped; then the command judges every receipt, and every spoilt copy."""
    for daemon in stage.daemons:
        daemon.wait_until_ready()  # the killed one is on its way back
    restore_parameters(stage)
    stage.before_restart = _remembered(stage)
    stage.report.requeued = sum(job["attempts"] > 1 for job in stage.before_restart["jobs"].values())
    stage.remember_processes()
    platform.down()
    running = [service.name for service in stack.status() if service.running]
    require(not running, f"still running: {', '.join(running)}")
    stage.tell("platform and stores are down")
    offline.require_all_valid(stage.files)
    stage.report.receipts_verified = len(stage.files)
    stage.tell(f"{len(stage.files)} receipts verified")
    spoilt = _spoilt(stage)
    offline.require_all_refused(spoilt, stage.folder / "spoilt")
    step.detail = (
        f"{len(stage.files)} receipts valid and anchored with every store down; "
        f"{len(spoilt)} copies with one changed byte all refused"
    )


def _spoilt(stage: Stage) -> list[bytes]:
    """Each byte of some receipts of different kinds, and one byte of each of the others."""
    contents = {file.stem: file.read_bytes() for file in stage.files}
    kinds = {order.kind: order.id for order in stage.orders}
    whole = [contents.pop(job) for job in list(kinds.values())[: stage.size.flipped]]
    spoilt = [copy for content in whole for copy in offline.every_byte_changed(content)]
    rest = contents.values()
    return spoilt + [offline.change_byte(content, random.randrange(len(content))) for content in rest]


def restart(stage: Stage, step: Step) -> None:
    """Everything is as it was, and the miners that stayed up all the while go on working."""
    stage.start_platform()
    now = _remembered(stage)
    for name, before in stage.before_restart.items():
        require(now[name] == before, f"{name} changed by the restart: {before} became {now[name]}")
    order = orders.matmul(region=REGION)
    stage.client.submit([order.body])
    stage.tell("the same data; one more job for the miners that outlived the platform")
    stage.collect([order.id], "jobs completed after the restart", log="log/demo-miner-*.log")
    done = stage.results[order.id]
    problem = order.check(done["result"]["output"])
    require(problem is None, str(problem))
    stage.client.verify(done["receipt"])
    step.detail = f"{', '.join(now)} unchanged; a new job done by a miner that outlived the platform"


def _remembered(stage: Stage) -> JSON:
    """What the client can see of this run."""
    listed = stage.client.jobs(since=stage.since)
    settlement = stage.report.settlement or {}  # of the step before
    return {
        "jobs": {job: listed[job] for job in stage.job_ids},
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
        platform.down()
    left = survivors(stage.seen, seconds=15)
    require(not left, f"left behind: {', '.join(left)}")
    step.detail = f"{len(stage.seen)} processes ended, none left"
