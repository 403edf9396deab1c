"""Where users hear of things, and whether it reaches them."""

from django.contrib import admin

from aitbc.core import db, show
from aitbc.core.columns import column, state
from aitbc.core.pages import Operation, ReadOnlyAdmin
from aitbc.webhooks.models import Delivery, Endpoint

SEND_AGAIN = Operation(
    name="send_again",
    label="Send again",
    icon="replay",
    question="Send this again?",
    effect="It is tried as if it were new, under the same id.",
    done="Deliveries queued again",
    service=lambda row, *_: db.rows("SELECT webhooks_requeue(%s)", (row.pk,)),
    is_apt=lambda row: row.state == Delivery.State.DEAD,
)


@admin.register(Endpoint)
class EndpointAdmin(ReadOnlyAdmin):
    icon = "webhook"
    list_display = ("url", "by", "enabled", "failing_since", "paused_until", "created_at")
    list_select_related = ("owner",)
    search_fields = ("id", "owner__email")
    fields = ("url", ("by", "enabled", "disabled_reason"), "events", ("failing_since", "paused_until"), "id")

    by = column("Owner", "owner", show.to)


@admin.register(Delivery)
class DeliveryAdmin(ReadOnlyAdmin):
    icon = "outgoing_mail"
    list_display = ("event", "state_shown", "endpoint", "attempts", "status", "error", "due_at", "created_at")
    list_select_related = ("endpoint",)
    list_filter = ("state",)
    search_fields = ("event_id", "endpoint__id")
    operations = (SEND_AGAIN,)
    fields = (("event", "event_id"), "endpoint", ("state_shown", "attempts", "due_at"), "error", "body_shown")

    state_shown = state({"pending": "info", "delivered": "success", "dead": "danger"})
    body_shown = column("Body", "body", show.block)
