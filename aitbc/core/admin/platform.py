"""The platform's own machinery: events on their way, tasks that failed for good, its heartbeat.

Stored answers of idempotent writes have no page: Django's admin has none for composite keys, and the
answers hold what only their caller may read.
"""

from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.db.models.functions import Now
from django.http import HttpRequest, HttpResponse
from unfold.decorators import action, display

from aitbc.core import deadletters, show
from aitbc.core.models import DeadTask, OutboxEvent, PlatformTick
from aitbc.core.pages import ReadOnlyAdmin


@admin.register(OutboxEvent)
class OutboxEventAdmin(ReadOnlyAdmin):
    icon = "outbox"
    list_display = ("id", "event", "aggregate", "state", "attempts", "created_at", "next_attempt_at")
    list_filter = ("dead",)
    search_fields = ("id", "event_id")
    search_help_text = "Number or event id"
    ordering = ("id",)
    fieldsets = (
        (None, {"fields": (("id", "event_id"), ("event", "aggregate"), ("state", "attempts"))}),
        ("Times", {"fields": (("created_at", "next_attempt_at"),)}),
        ("Payload", {"fields": ("payload_shown",)}),
        ("Last error", {"fields": ("last_error_shown",)}),
    )

    @display(description="State")
    def state(self, event: OutboxEvent) -> str:
        state = "dead" if event.dead else "retrying" if event.attempts else "waiting"
        return show.state(state, {"waiting": "info", "retrying": "warning", "dead": "danger"})

    @display(description="Payload")
    def payload_shown(self, event: OutboxEvent) -> str:
        return show.document(event.payload)

    @display(description="Last error")
    def last_error_shown(self, event: OutboxEvent) -> str:
        return show.block(event.last_error)


class SentAgainFilter(admin.SimpleListFilter):
    title = "handled"
    parameter_name = "handled"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("no", "Waits for a decision"), ("yes", "Was sent again")]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        if self.value() is None:
            return queryset
        return queryset.filter(requeued_at__isnull=self.value() == "no")


@admin.register(DeadTask)
class DeadTaskAdmin(ReadOnlyAdmin):
    icon = "heart_broken"
    list_display = ("name", "queue", "error_short", "failed_at", "requeued_at")
    list_filter = (SentAgainFilter,)
    search_fields = ("id", "task_id")
    search_help_text = "Id of the row or of the task"
    actions = ("send_again",)
    actions_detail = ("send_this_again",)
    fieldsets = (
        (None, {"fields": (("name", "queue"), ("task_id", "id"), ("failed_at", "requeued_at"))}),
        ("Arguments", {"fields": ("args_shown", "kwargs_shown")}),
        ("Why it failed", {"fields": ("error_shown", "traceback_shown")}),
    )

    @display(description="Error")
    def error_short(self, dead: DeadTask) -> str:
        return dead.error if len(dead.error) <= 90 else dead.error[:89] + "…"

    @display(description="Positional")
    def args_shown(self, dead: DeadTask) -> str:
        return show.document(dead.args)

    @display(description="Named")
    def kwargs_shown(self, dead: DeadTask) -> str:
        return show.document(dead.kwargs)

    @display(description="Error")
    def error_shown(self, dead: DeadTask) -> str:
        return show.block(dead.error)

    @display(description="Traceback")
    def traceback_shown(self, dead: DeadTask) -> str:
        return show.block(dead.traceback)

    @action(description="Send again", permissions=["operate"])
    def send_again(self, request: HttpRequest, queryset: QuerySet[DeadTask]) -> None:
        self.apply_each(request, queryset, self._requeue, "Tasks sent again")

    @action(
        description="Send again",
        permissions=["operate"],
        icon="replay",
        dialog={
            "title": "Send this task again?",
            "description": "It goes back to its queue once, with the same arguments.",
            "form_class": None,
            "form_submit_text": "Send again",
        },
    )
    def send_this_again(self, request: HttpRequest, form: Any, object_id: str) -> HttpResponse:
        return self.apply_one(request, object_id, self._requeue, "Tasks sent again")

    def is_apt(self, name: str, dead: DeadTask) -> bool:
        return dead.requeued_at is None

    @staticmethod
    def _requeue(dead: DeadTask) -> object:
        return deadletters.requeue(dead_id=dead.pk)


@admin.register(PlatformTick)
class PlatformTickAdmin(ReadOnlyAdmin):
    icon = "monitor_heart"
    list_display = ("process", "at", "age", "resumed_at")
    search_fields = ("process",)
    search_help_text = "Process"
    fields = (("process", "age"), ("at", "resumed_at"))
    ordering = ("process",)

    def get_queryset(self, request: HttpRequest) -> QuerySet[PlatformTick]:
        ticks: QuerySet[PlatformTick] = super().get_queryset(request)
        return ticks.annotate(now=Now())

    @display(description="Age")
    def age(self, tick: Any) -> str:
        return show.age(tick.at, tick.now)
