"""Where users hear of things, and whether it reaches them."""

from django.contrib import admin

from aitbc.core import show
from aitbc.core.columns import column, state
from aitbc.core.pages import Operation, ReadOnlyAdmin
from aitbc.webhooks.endpoints import ask
from aitbc.webhooks.models import Delivery, Endpoint

REQUEUE = Operation(
    name="requeue",
    label="Send again",
    icon="replay",
    question="Send this again?",
    effect="It is tried as if it were new, under the same id.",
    done="Deliveries queued again",
    service=lambda d, *_: ask("replay", d.endpoint.owner_id, d.endpoint_id, d.event_id, None, False),
    is_apt=lambda delivery: delivery.state == Delivery.State.DEAD,
)


@admin.register(Endpoint)
class EndpointAdmin(ReadOnlyAdmin):
    icon = "webhook"
    list_display = ("url", "by", "enabled", "failing_since", "paused_until", "created_at")
    list_select_related = ("owner",)
    list_filter = ("enabled",)
    search_fields = ("id", "owner__email")
    search_help_text = "Id, or the owner's e-mail"
    fields = ("url", ("by", "enabled", "disabled_reason"), "events", ("failing_since", "paused_until"), "id")

    by = column("Owner", "owner", show.to)


@admin.register(Delivery)
class DeliveryAdmin(ReadOnlyAdmin):
    icon = "outgoing_mail"
    list_display = (
        "event",
        "status_shown",
        "endpoint",
        "attempts",
        "status",
        "error",
        "due_at",
        "created_at",
    )
    list_select_related = ("endpoint",)
    list_filter = ("state",)
    search_fields = ("event_id", "endpoint__id")
    search_help_text = "Id of the event or of the webhook"
    operations = (REQUEUE,)
    fields = (
        ("event", "event_id"),
        "endpoint",
        ("status_shown", "attempts", "due_at"),
        "error",
        "body_shown",
    )

    status_shown = state({"pending": "info", "delivered": "success", "dead": "danger"})
    body_shown = column("Body", "body", show.block)
