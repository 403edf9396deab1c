"""Celery shells of the gpu services."""

from celery import shared_task

from aitbc.core.tasks import RETRY_UNAVAILABLE
from apps.gpu.services import sweeps


@shared_task(name="gpu.sweep", **RETRY_UNAVAILABLE)
def sweep() -> dict[str, int]:
    return sweeps.sweep()
