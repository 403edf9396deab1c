"""Prepaid streams to look at: who pays whom, how fast, and until when."""

from django.contrib import admin
from orjson import loads

from aitbc.core import show
from aitbc.core.columns import column, state
from aitbc.core.pages import ReadOnlyAdmin
from apps.trading.admin.amounts import amount
from apps.trading.models import Stream
from apps.trading.services import streams


@admin.register(Stream)
class StreamAdmin(ReadOnlyAdmin):
    icon = "water_drop"
    list_display = ("ident", "status", "owner_shown", "rate_amount", "deposited_amount", "ends_at")
    list_select_related = ("owner",)
    list_filter = ("state",)
    search_fields = ("id", "owner__email")
    fields = (("status", "owner_shown"), ("rate_amount", "deposited_amount"), "document")

    status = state({"open": "success", "ended": "warning"})
    owner_shown = column("Owner", "owner", show.to, ordering="owner")
    rate_amount = amount("Per second", "rate", "asset", ordering="rate")
    deposited_amount = amount("Deposited", "deposited", "asset", ordering="deposited")
    document = column("Now", lambda row: show.document(loads(streams.document(user=None, stream=row.pk))))
