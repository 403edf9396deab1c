"""Tasks that failed for good: kept with what is needed to decide, and to send them again."""

from typing import Any
from uuid import UUID

from celery import current_app
from django.db import transaction
from django.utils import timezone

from aitbc.core.errors import Conflict, NotFound
from aitbc.core.models import DeadTask


def bury_task(*, task: Any, task_id: str, error: BaseException, **details: Any) -> None:
    request = task.request
    DeadTask.objects.get_or_create(
        task_id=task_id,
        defaults={
            "name": task.name,
            "queue": (request.delivery_info or {}).get("routing_key") or "default",
            "args": list(details.get("args") or ()),
            "kwargs": dict(details.get("kwargs") or {}),
            "error": repr(error)[:2000],
            "traceback": str(details.get("einfo") or "")[:20_000],
        },
    )


@transaction.atomic
def requeue(*, dead_id: UUID) -> DeadTask:
    """Send a dead task again, once; its work is repeatable by rule."""
    dead = DeadTask.objects.select_for_update().filter(pk=dead_id).first()
    if dead is None:
        raise NotFound("dead_task.unknown", "there is no such dead task")
    if dead.requeued_at is not None:
        raise Conflict("dead_task.requeued", "this task was sent again already")
    dead.requeued_at = timezone.now()
    dead.save(update_fields=["requeued_at"])
    name, args, kwargs, queue = dead.name, dead.args, dead.kwargs, dead.queue
    transaction.on_commit(lambda: current_app.send_task(name, args, kwargs, queue=queue))
    return dead
