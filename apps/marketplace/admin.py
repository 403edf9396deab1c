"""Offers to look at, and the platform's word on them."""

from functools import partial
from typing import Any

from django import forms
from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from unfold.decorators import action, display
from unfold.forms import BaseDialogForm
from unfold.widgets import UnfoldAdminTextInputWidget

from aitbc.core import show
from aitbc.core.pages import ReadOnlyAdmin, ReadOnlyInline
from apps.marketplace.models import Offer, OfferDevice, OfferTransition
from apps.marketplace.services import offers as services
from apps.trading.selectors.assets import decimals

STATES = {"listed": "success", "paused": "warning", "suspended": "danger", "delisted": "info"}


class ReasonForm(BaseDialogForm):
    note = forms.CharField(label="Why, for the log", max_length=300, widget=UnfoldAdminTextInputWidget)


class DevicesOfOffer(ReadOnlyInline):
    model = OfferDevice
    fields = readonly_fields = ("device_shown", "memory", "verified", "active")
    verbose_name_plural = "Devices"
    ordering = ("id",)

    def get_queryset(self, request: HttpRequest) -> QuerySet[OfferDevice]:
        parts: QuerySet[OfferDevice] = super().get_queryset(request)
        return parts.select_related("device")

    @display(description="Device")
    def device_shown(self, part: OfferDevice) -> str:
        return show.link("gpu_device", part.device_id, part.device)

    @display(description="Memory")
    def memory(self, part: OfferDevice) -> str:
        return f"{part.device.memory_mb} MiB"

    @display(description="Verified", boolean=True)
    def verified(self, part: OfferDevice) -> bool:
        return part.device.verified

    @display(description="Active", boolean=True)
    def active(self, part: OfferDevice) -> bool:
        return part.device.active


class TransitionsOfOffer(ReadOnlyInline):
    model = OfferTransition
    fields = readonly_fields = ("at", "before", "after", "reason", "note", "by_shown")
    verbose_name_plural = "How it came to its state"
    ordering = ("-id",)
    per_page = 20

    def get_queryset(self, request: HttpRequest) -> QuerySet[OfferTransition]:
        log: QuerySet[OfferTransition] = super().get_queryset(request)
        return log.select_related("by")

    @display(description="By")
    def by_shown(self, transition: OfferTransition) -> str:
        return _by(transition)


@admin.register(Offer)
class OfferAdmin(ReadOnlyAdmin):
    icon = "sell"
    list_display = (
        "id_shown",
        "state_shown",
        "model",
        "device_count",
        "memory",
        "price_amount",
        "region",
        "verified",
        "miner_shown",
        "created_at",
    )
    list_select_related = ("miner",)
    list_filter = ("state", "verified")
    search_fields = ("id", "miner__id", "miner__owner__email")
    search_help_text = "Offer, miner, or the seller's e-mail"
    actions_detail = ("suspend_this", "lift_this")
    inlines = (DevicesOfOffer, TransitionsOfOffer)
    fieldsets = (
        (None, {"fields": (("state_shown", "reason"), ("miner_shown", "region"), "id")}),
        (
            "For sale",
            {"fields": (("model", "device_count", "memory"), ("price_amount", "verified"), "kinds_shown")},
        ),
        ("Times", {"fields": (("created_at", "updated_at"), "available_from")}),
    )

    @display(description="Id")
    def id_shown(self, offer: Offer) -> str:
        return show.short(offer.pk)

    @display(description="State", ordering="state")
    def state_shown(self, offer: Offer) -> str:
        return show.state(offer.state, STATES)

    @display(description="Memory each", ordering="memory_mb")
    def memory(self, offer: Offer) -> str:
        return f"{offer.memory_mb} MiB"

    @display(description="Per device second", ordering="price")
    def price_amount(self, offer: Offer) -> str:
        return show.amount(offer.price, offer.asset, decimals(offer.asset))

    @display(description="Miner", ordering="miner")
    def miner_shown(self, offer: Offer) -> str:
        return show.link("gpu_miner", offer.miner_id, offer.miner)

    @display(description="Kinds")
    def kinds_shown(self, offer: Offer) -> str:
        return ", ".join(offer.kinds)

    def is_apt(self, name: str, offer: Offer) -> bool:
        suspended = offer.state == Offer.State.SUSPENDED
        return suspended if name == "lift_this" else offer.state in (Offer.State.LISTED, Offer.State.PAUSED)

    @action(
        description="Suspend",
        permissions=["operate"],
        icon="block",
        dialog={
            "title": "Suspend this offer?",
            "description": "No job can name it until the suspension is lifted.",
            "form_class": ReasonForm,
            "form_submit_text": "Suspend",
        },
    )
    def suspend_this(self, request: HttpRequest, form: ReasonForm, object_id: str) -> HttpResponse:
        user: Any = request.user
        suspend = partial(_suspend, by=user.pk, note=form.cleaned_data["note"])
        return self.apply_one(request, object_id, suspend, "Offers suspended")

    @action(
        description="Lift the suspension",
        permissions=["operate"],
        icon="play_circle",
        dialog={
            "title": "Lift the suspension?",
            "description": "The offer is listed again, or paused for what stands in its way.",
            "form_class": None,
            "form_submit_text": "Lift",
        },
    )
    def lift_this(self, request: HttpRequest, form: Any, object_id: str) -> HttpResponse:
        user: Any = request.user
        return self.apply_one(request, object_id, partial(_lift, by=user.pk), "Suspensions lifted")


def _suspend(offer: Offer, **why: Any) -> object:
    return services.suspend_offer(offer_id=offer.pk, **why)


def _lift(offer: Offer, **why: Any) -> object:
    return services.lift_suspension(offer_id=offer.pk, **why)


def _by(transition: OfferTransition) -> str:
    if transition.by_id is None:
        return "followed its miner"
    return show.link("accounts_user", transition.by_id, transition.by)


@admin.register(OfferDevice)
class OfferDeviceAdmin(ReadOnlyAdmin):
    icon = "extension"
    list_display = ("id", "device_shown", "offer_shown", "state_shown")
    list_select_related = ("device", "offer")
    search_fields = ("id", "device__id", "offer__id")
    search_help_text = "Number, device or offer"
    ordering = ("-id",)
    fields = (("device_shown", "offer_shown"), "state_shown")

    @display(description="Device")
    def device_shown(self, part: OfferDevice) -> str:
        return show.link("gpu_device", part.device_id, part.device)

    @display(description="Offer")
    def offer_shown(self, part: OfferDevice) -> str:
        return show.link("marketplace_offer", part.offer_id, part.offer)

    @display(description="State", ordering="state")
    def state_shown(self, part: OfferDevice) -> str:
        return show.state(part.state, STATES)


@admin.register(OfferTransition)
class OfferTransitionAdmin(ReadOnlyAdmin):
    icon = "history"
    list_display = ("id", "offer_shown", "before", "after", "reason", "by_shown", "at")
    list_select_related = ("offer", "by")
    search_fields = ("id", "offer__id", "by__email")
    search_help_text = "Number, offer, or who by e-mail"
    ordering = ("-id",)
    fields = (("offer_shown", "at"), ("before", "after"), ("reason", "note"), "by_shown")

    @display(description="Offer")
    def offer_shown(self, transition: OfferTransition) -> str:
        return show.link("marketplace_offer", transition.offer_id, transition.offer)

    @display(description="By")
    def by_shown(self, transition: OfferTransition) -> str:
        return _by(transition)
