"""Offers to look at, and the platform's word on them."""

from django import forms
from django.contrib import admin
from unfold.forms import BaseDialogForm
from unfold.widgets import UnfoldAdminTextInputWidget

from aitbc.core import show
from aitbc.core.columns import column, state
from aitbc.core.pages import Operation, ReadOnlyAdmin, ReadOnlyInline
from apps.marketplace.models import Offer, OfferDevice, OfferTransition
from apps.marketplace.services import offers as services
from apps.trading.admin.amounts import amount

STATES = {"listed": "success", "paused": "warning", "suspended": "danger", "delisted": "info"}


class ReasonForm(BaseDialogForm):
    note = forms.CharField(label="Why, for the log", max_length=300, widget=UnfoldAdminTextInputWidget)


OPERATIONS = (
    Operation(
        name="suspend",
        label="Suspend",
        icon="block",
        question="Suspend this offer?",
        effect="No job can name it until the suspension is lifted.",
        done="Offers suspended",
        service=lambda offer, by, fields: services.suspend_offer(offer_id=offer.pk, by=by.pk, note=fields["note"]),
        is_apt=lambda offer: offer.state in (Offer.State.LISTED, Offer.State.PAUSED),
        form=ReasonForm,
        on_list=False,
    ),
    Operation(
        name="lift",
        label="Lift the suspension",
        icon="play_circle",
        question="Lift the suspension?",
        effect="The offer is listed again, or paused for what stands in its way.",
        confirm="Lift",
        done="Suspensions lifted",
        service=lambda offer, by, fields: services.lift_suspension(offer_id=offer.pk, by=by.pk),
        is_apt=lambda offer: offer.state == Offer.State.SUSPENDED,
        on_list=False,
    ),
)


class DevicesOfOffer(ReadOnlyInline):
    model = OfferDevice
    fields = readonly_fields = ("device_shown", "memory", "verified", "active")
    verbose_name_plural = "Devices"
    ordering = ("id",)
    select_related = ("device",)

    device_shown = column("Device", "device", show.to)
    memory = column("Memory", "device.memory_mb", "{} MiB".format)
    verified = column("Verified", "device.verified", boolean=True)
    active = column("Active", "device.active", boolean=True)


class TransitionColumns:
    """What the list of transitions and the page of an offer show alike."""

    by_shown = column("By", lambda row: show.to(row.by) if row.by_id else "followed its miner")


class TransitionsOfOffer(TransitionColumns, ReadOnlyInline):
    model = OfferTransition
    fields = readonly_fields = ("at", "before", "after", "reason", "note", "by_shown")
    verbose_name_plural = "How it came to its state"
    ordering = ("-id",)
    per_page = 20
    select_related = ("by",)


@admin.register(Offer)
class OfferAdmin(ReadOnlyAdmin):
    icon = "sell"
    list_display = (
        "ident", "status", "model", "device_count", "memory", "price_amount", "region", "verified",
        "miner_shown", "created_at",
    )  # fmt: skip
    list_select_related = ("miner",)
    list_filter = ("state", "verified")
    search_fields = ("id", "miner__id", "miner__owner__email")
    operations = OPERATIONS
    inlines = (DevicesOfOffer, TransitionsOfOffer)
    sections = {
        None: (("status", "reason"), ("miner_shown", "region"), "id"),
        "For sale": (("model", "device_count", "memory"), ("price_amount", "verified"), "kinds_shown"),
        "Times": (("created_at", "updated_at"), "available_from"),
    }

    status = state(STATES)
    memory = column("Memory each", "memory_mb", "{} MiB".format, ordering="memory_mb")
    price_amount = amount("Per device second", "price", "asset", ordering="price")
    miner_shown = column("Miner", "miner", show.to, ordering="miner")
    kinds_shown = column("Kinds", "kinds", ", ".join)


@admin.register(OfferDevice)
class OfferDeviceAdmin(ReadOnlyAdmin):
    icon = "extension"
    list_display = ("id", "device_shown", "offer_shown", "status")
    list_select_related = ("device", "offer")
    search_fields = ("id", "device__id", "offer__id")
    fields = (("device_shown", "offer_shown"), "status")

    device_shown = column("Device", "device", show.to)
    offer_shown = column("Offer", "offer", show.to)
    status = state(STATES)


@admin.register(OfferTransition)
class OfferTransitionAdmin(TransitionColumns, ReadOnlyAdmin):
    icon = "history"
    list_display = ("id", "offer_shown", "before", "after", "reason", "by_shown", "at")
    list_select_related = ("offer", "by")
    search_fields = ("id", "offer__id", "by__email")
    ordering = ("-id",)
    fields = (("offer_shown", "at"), ("before", "after"), ("reason", "note"), "by_shown")

    offer_shown = column("Offer", "offer", show.to)
