"""The platform's own machinery: events on their way, tasks that failed for good, its heartbeat.

Stored answers of idempotent writes have no page: Django's admin has none for composite keys, and the
answers hold what only their caller may read.
"""

from django.contrib import admin
from django.db.models import QuerySet
from django.db.models.functions import Now
from django.http import HttpRequest
from django.utils.text import Truncator
from unfold.decorators import display

from aitbc.core import deadletters, show
from aitbc.core.columns import column
from aitbc.core.models import DeadTask, OutboxEvent, PlatformTick
from aitbc.core.pages import Operation, ReadOnlyAdmin, SetFilter


@admin.register(OutboxEvent)
class OutboxEventAdmin(ReadOnlyAdmin):
    icon = "outbox"
    list_display = ("id", "event", "aggregate", "state", "attempts", "created_at", "next_attempt_at")
    list_filter = ("dead",)
    search_fields = ("id", "event_id")
    ordering = ("id",)
    sections = {
        None: (("id", "event_id"), ("event", "aggregate"), ("state", "attempts")),
        "Times": (("created_at", "next_attempt_at"),),
        "Payload": ("payload_shown",),
        "Last error": ("last_error_shown",),
    }

    @display(description="State")
    def state(self, event: OutboxEvent) -> str:
        state = "dead" if event.dead else "retrying" if event.attempts else "waiting"
        return show.state(state, {"waiting": "info", "retrying": "warning", "dead": "danger"})

    payload_shown = column("Payload", "payload", show.document)
    last_error_shown = column("Last error", "last_error", show.block)


class SentAgainFilter(SetFilter):
    title, parameter_name, column = "handled", "handled", "requeued_at"
    answers = ("Waits for a decision", "Was sent again")


SEND_AGAIN = Operation(
    name="send_again",
    label="Send again",
    icon="replay",
    question="Send this task again?",
    effect="It goes back to its queue once, with the same arguments.",
    done="Tasks sent again",
    service=lambda dead, *_: deadletters.requeue(dead_id=dead.pk),
    is_apt=lambda dead: dead.requeued_at is None,
)


@admin.register(DeadTask)
class DeadTaskAdmin(ReadOnlyAdmin):
    icon = "heart_broken"
    list_display = ("name", "queue", "error_short", "failed_at", "requeued_at")
    list_filter = (SentAgainFilter,)
    search_fields = ("id", "task_id")
    operations = (SEND_AGAIN,)
    sections = {
        None: (("name", "queue"), ("task_id", "id"), ("failed_at", "requeued_at")),
        "Arguments": ("args_shown", "kwargs_shown"),
        "Why it failed": ("error_shown", "traceback_shown"),
    }

    error_short = column("Error", lambda dead: Truncator(dead.error).chars(90))
    args_shown = column("Positional", "args", show.document)
    kwargs_shown = column("Named", "kwargs", show.document)
    error_shown = column("Error", "error", show.block)
    traceback_shown = column("Traceback", "traceback", show.block)


@admin.register(PlatformTick)
class PlatformTickAdmin(ReadOnlyAdmin):
    icon = "monitor_heart"
    list_display = ("process", "at", "age", "resumed_at")
    search_fields = ("process",)
    fields = (("process", "age"), ("at", "resumed_at"))
    ordering = ("process",)

    age = column("Age", lambda tick: show.age(tick.at, tick.now))

    def get_queryset(self, request: HttpRequest) -> QuerySet[PlatformTick]:
        ticks: QuerySet[PlatformTick] = super().get_queryset(request)
        return ticks.annotate(now=Now())
