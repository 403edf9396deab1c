"""Tasks and events that failed for good: kept with what is needed to decide, and to try them again."""

from typing import Any
from uuid import UUID

from celery import current_app
from django.db import transaction

from aitbc.core.clock import database_now
from aitbc.core.errors import Conflict, NotFound
from aitbc.core.models import DeadTask, OutboxEvent


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
            "traceback": str(details.get("einfo") or "").replace("\0", "")[:20_000],
        },
    )


@transaction.atomic
def revive(*, event: int) -> OutboxEvent:
    """Let the relay try a dead event again; the later ones of its aggregate follow it."""
    record = OutboxEvent.objects.select_for_update().filter(pk=event).first()
    if record is None:
        raise NotFound("event.unknown", "there is no such event, or it was delivered")
    if not record.dead:
        raise Conflict("event.alive", "this event is not dead")
    record.dead, record.attempts, record.next_attempt_at = False, 0, database_now()
    record.save(update_fields=["dead", "attempts", "next_attempt_at"])
    return record


@transaction.atomic
def requeue(*, dead_id: UUID) -> DeadTask:
    """Send a dead task again, once; its work is repeatable by rule."""
    dead = DeadTask.objects.select_for_update().filter(pk=dead_id).first()
    if dead is None:
        raise NotFound("dead_task.unknown", "there is no such dead task")
    if dead.requeued_at is not None:
        raise Conflict("dead_task.requeued", "this task was sent again already")
    dead.requeued_at = database_now()
    dead.save(update_fields=["requeued_at"])
    name, args, kwargs, queue = dead.name, dead.args, dead.kwargs, dead.queue
    transaction.on_commit(lambda: current_app.send_task(name, args, kwargs, queue=queue))
    return dead
