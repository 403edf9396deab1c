"""Celery shells of the gpu services."""

import orjson
from celery import shared_task

from aitbc.core import db
from aitbc.core.tasks import RETRY_UNAVAILABLE
from apps.gpu import worker
from apps.gpu.services import challenges, reliability, sweeps, uploads
from apps.gpu.services import dispatch as dispatching


@shared_task(name="gpu.sweep", **RETRY_UNAVAILABLE)
def sweep() -> dict[str, int]:
    return sweeps.sweep()


@shared_task(name="gpu.challenge", **RETRY_UNAVAILABLE)
def challenge() -> int:
    return challenges.draw()


@shared_task(name="gpu.rate", **RETRY_UNAVAILABLE)
def rate() -> int:
    return reliability.refresh()


@shared_task(name="gpu.dispatch", ignore_result=True)
def dispatch() -> int:
    """One task per queued job that the platform's own workers could take, up to a few."""
    count = dispatching.due()
    for _ in range(count):
        work.apply_async(expires=30)
    return count


@shared_task(name="gpu.work", **RETRY_UNAVAILABLE)
def work() -> str:
    """Lease a job and run it. The lease is the truth: a task that finds none left returns."""
    return worker.agent().serve_one() or "nothing to do"


@shared_task(name="gpu.probe")
def probe() -> None:
    """On a worker of the queue `gpu`: every kind really run in its sandbox."""
    found = orjson.dumps(worker.probe()).decode()
    db.rows("UPDATE gpu_probe SET answered_at = clock_timestamp(), report = %s::jsonb", (found,))


@shared_task(name="gpu.record")
def record() -> list[int]:
    """Once a minute: the load of each kind, and the windows of telemetry that are over -> rows of both."""
    return [int(db.value(f"SELECT {function}()")) for function in ("gpu_record_load", "gpu_telemetry_roll")]


@shared_task(name="gpu.keep")
def keep() -> int:
    """Partitions of telemetry ahead of time; what is past its retention goes, logs and partial uploads too."""
    return int(db.value("SELECT gpu_telemetry_keep()")) + uploads.forget()
