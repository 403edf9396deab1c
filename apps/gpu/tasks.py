"""Celery shells of the gpu services."""

from celery import shared_task

from aitbc.core.tasks import RETRY_UNAVAILABLE
from apps.gpu import worker
from apps.gpu.services import dispatch as dispatching
from apps.gpu.services import sweeps


@shared_task(name="gpu.sweep", **RETRY_UNAVAILABLE)
def sweep() -> dict[str, int]:
    return sweeps.sweep()


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
