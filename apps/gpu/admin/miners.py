"""Miners, their devices and how they proved them."""

from typing import Any

from django.contrib import admin
from django.db.models import Count, Q, QuerySet
from django.http import HttpRequest, HttpResponse
from unfold.decorators import action, display

from aitbc.core import show
from aitbc.core.pages import ReadOnlyAdmin, ReadOnlyInline, once
from apps.gpu.admin.money import ait
from apps.gpu.models import Challenge, Device, Heartbeat, Job, Miner, Nonce
from apps.gpu.services import moderation

STATES = {
    "online": "success",
    "suspect": "warning",
    "draining": "info",
    "dead": "danger",
    "suspended": "danger",
}
CHALLENGES = {"passed": "success", "failed": "danger", "issued": "info", "committed": "warning"}


def _measured(device: Device) -> str:
    return show.verdict(
        device.verified, f"{show.number(device.tflops, 'TFLOPS', 3)}" if device.verified else "not verified"
    )


def _telemetry(device: Device) -> str:
    if device.sampled_at is None:
        return "none yet"
    parts = [
        show.number(device.utilization, "%", 0) if device.utilization is not None else "",
        f"{device.memory_used_mb} MiB used" if device.memory_used_mb is not None else "",
        show.number(device.temperature_c, "°C", 0) if device.temperature_c is not None else "",
        show.number(device.power_w, "W", 0) if device.power_w is not None else "",
    ]
    return ", ".join(part for part in parts if part)


class DevicesOfMiner(ReadOnlyInline):
    model = Device
    fields = readonly_fields = ("device", "kind", "memory", "measured", "telemetry", "sampled_at", "active")
    ordering = ("-active", "model")

    @display(description="Device")
    def device(self, device: Device) -> str:
        return show.link("gpu_device", device.pk, device.model)

    @display(description="Memory")
    def memory(self, device: Device) -> str:
        return f"{device.memory_mb} MiB"

    @display(description="Measured")
    def measured(self, device: Device) -> str:
        return _measured(device)

    @display(description="Telemetry")
    def telemetry(self, device: Device) -> str:
        return _telemetry(device)


@admin.register(Miner)
class MinerAdmin(ReadOnlyAdmin):
    icon = "memory"
    list_display = (
        "name",
        "state_shown",
        "owner_shown",
        "region",
        "kinds_shown",
        "slots",
        "price_amount",
        "sandbox",
        "last_seen_at",
    )
    list_select_related = ("owner",)
    list_filter = ("state", "first_party")
    search_fields = ("id", "address", "owner__email", "name")
    search_help_text = "Id, address, name, or the owner's e-mail"
    actions = ("drain", "suspend", "resume")
    actions_detail = ("drain_this", "suspend_this", "resume_this")
    inlines = (DevicesOfMiner,)
    fieldsets = (
        (
            None,
            {
                "fields": (
                    ("name", "state_shown"),
                    ("owner_shown", "key_shown"),
                    ("region", "origin"),
                    "id",
                )
            },
        ),
        (
            "Work",
            {"fields": (("kinds_shown", "models_shown"), ("slots", "price_amount"), "sandbox", "holds")},
        ),
        ("Life", {"fields": (("created_at", "last_seen_at"), "sequence", "address_shown", "head_shown")}),
    )

    def get_queryset(self, request: HttpRequest) -> QuerySet[Miner]:
        miners: QuerySet[Miner] = super().get_queryset(request)
        return miners.annotate(busy=Count("jobs", filter=Q(jobs__state__in=("leased", "running"))))

    @display(description="State", ordering="state")
    def state_shown(self, miner: Miner) -> str:
        return show.state(miner.state, STATES)

    @display(description="Owner", ordering="owner")
    def owner_shown(self, miner: Miner) -> str:
        return show.link("accounts_user", miner.owner_id, miner.owner)

    @display(description="Run by", ordering="first_party")
    def origin(self, miner: Miner) -> str:
        return "the platform: a Celery worker" if miner.first_party else "its owner"

    @display(description="API key")
    def key_shown(self, miner: Miner) -> str:
        return show.link("accounts_apikey", miner.key_id, miner.key)

    @display(description="Kinds")
    def kinds_shown(self, miner: Miner) -> str:
        return ", ".join(miner.kinds)

    @display(description="Models")
    def models_shown(self, miner: Miner) -> str:
        return ", ".join(miner.model_names) or show.NOTHING

    @display(description="Busy slots")
    def slots(self, miner: Any) -> str:
        return f"{miner.busy} of {miner.concurrency}"

    @display(description="Per device second", ordering="price")
    def price_amount(self, miner: Miner) -> str:
        return ait(miner.price)

    @display(description="Holds now")
    @once
    def holds(self, miner: Miner) -> str:
        held = Job.objects.filter(miner=miner, state__in=("leased", "running")).order_by("leased_at")[:20]
        lines = [
            (show.link("gpu_job", job.pk), job.kind, job.state, show.moment(job.leased_at)) for job in held
        ]
        return show.table(("Job", "Kind", "State", "Leased"), lines, empty="Nothing.")

    @display(description="Address")
    def address_shown(self, miner: Miner) -> str:
        return show.code(miner.address)

    @display(description="Head of its heartbeats")
    def head_shown(self, miner: Miner) -> str:
        return show.code(miner.head)

    def is_apt(self, name: str, miner: Miner) -> bool:
        return (
            miner.state
            in {
                "drain_this": (Miner.State.ONLINE, Miner.State.SUSPECT),
                "suspend_this": [state for state in Miner.State if state != Miner.State.SUSPENDED],
                "resume_this": (Miner.State.DRAINING, Miner.State.SUSPENDED),
            }[name]
        )

    @action(description="Drain", permissions=["operate"])
    def drain(self, request: HttpRequest, queryset: QuerySet[Miner]) -> None:
        self.apply_each(request, queryset, _drain, "Miners drained")

    @action(description="Suspend", permissions=["operate"])
    def suspend(self, request: HttpRequest, queryset: QuerySet[Miner]) -> None:
        self.apply_each(request, queryset, _suspend, "Miners suspended")

    @action(description="Resume", permissions=["operate"])
    def resume(self, request: HttpRequest, queryset: QuerySet[Miner]) -> None:
        self.apply_each(request, queryset, _resume, "Miners resumed")

    @action(
        description="Drain",
        permissions=["operate"],
        icon="water_drop",
        dialog={
            "title": "Drain this miner?",
            "description": "It finishes the work that it holds and gets no more.",
            "form_class": None,
            "form_submit_text": "Drain",
        },
    )
    def drain_this(self, request: HttpRequest, form: Any, object_id: str) -> HttpResponse:
        return self.apply_one(request, object_id, _drain, "Miners drained")

    @action(
        description="Suspend",
        permissions=["operate"],
        icon="block",
        dialog={
            "title": "Suspend this miner?",
            "description": "Its leases go back to the queue now, and it gets no more work.",
            "form_class": None,
            "form_submit_text": "Suspend",
        },
    )
    def suspend_this(self, request: HttpRequest, form: Any, object_id: str) -> HttpResponse:
        return self.apply_one(request, object_id, _suspend, "Miners suspended")

    @action(
        description="Resume",
        permissions=["operate"],
        icon="play_circle",
        dialog={
            "title": "Let this miner work again?",
            "description": "It counts as suspect until its next heartbeat.",
            "form_class": None,
            "form_submit_text": "Resume",
        },
    )
    def resume_this(self, request: HttpRequest, form: Any, object_id: str) -> HttpResponse:
        return self.apply_one(request, object_id, _resume, "Miners resumed")


def _drain(miner: Miner) -> object:
    return moderation.drain(miner=miner.pk)


def _suspend(miner: Miner) -> object:
    return moderation.suspend(miner=miner.pk)


def _resume(miner: Miner) -> object:
    return moderation.resume(miner=miner.pk)


@admin.register(Device)
class DeviceAdmin(ReadOnlyAdmin):
    icon = "developer_board"
    list_display = ("model", "miner_shown", "kind", "memory", "measured", "telemetry", "sampled_at", "active")
    list_select_related = ("miner",)
    list_filter = ("kind", "verified", "active")
    search_fields = ("id", "uuid", "miner__id", "miner__owner__email")
    search_help_text = "Id, uuid, miner, or the owner's e-mail"
    fieldsets = (
        (None, {"fields": (("model", "kind"), ("miner_shown", "active"), ("uuid", "id"))}),
        (
            "As detected",
            {"fields": (("memory", "cuda", "driver"), ("claimed_tflops", "claimed_memory_gbps"))},
        ),
        ("As the platform measured", {"fields": (("measured", "verified_at"), ("tflops", "memory_gbps"))}),
        ("Latest telemetry", {"fields": (("telemetry", "sampled_at"),)}),
    )

    @display(description="Miner", ordering="miner")
    def miner_shown(self, device: Device) -> str:
        return show.link("gpu_miner", device.miner_id, device.miner)

    @display(description="Memory", ordering="memory_mb")
    def memory(self, device: Device) -> str:
        return f"{device.memory_mb} MiB"

    @display(description="Measured", ordering="tflops")
    def measured(self, device: Device) -> str:
        return _measured(device)

    @display(description="Telemetry")
    def telemetry(self, device: Device) -> str:
        return _telemetry(device)


@admin.register(Challenge)
class ChallengeAdmin(ReadOnlyAdmin):
    icon = "fitness_center"
    list_display = (
        "id_shown",
        "state_shown",
        "miner_shown",
        "device_shown",
        "work",
        "took",
        "measured",
        "issued_at",
    )
    list_select_related = ("miner", "device")
    list_filter = ("state",)
    search_fields = ("id", "miner__id", "device__uuid")
    search_help_text = "Id, miner, or the device's uuid"
    fieldsets = (
        (None, {"fields": (("state_shown", "reason"), ("miner_shown", "device_shown"), "id")}),
        ("Work", {"fields": (("work", "took"), "measured", "seed_shown", "nonce_shown", "roots_shown")}),
        ("Times", {"fields": (("issued_at", "committed_at"), "deadline")}),
    )

    @display(description="Id")
    def id_shown(self, challenge: Challenge) -> str:
        return show.short(challenge.pk)

    @display(description="State", ordering="state")
    def state_shown(self, challenge: Challenge) -> str:
        return show.state(challenge.state, CHALLENGES)

    @display(description="Miner", ordering="miner")
    def miner_shown(self, challenge: Challenge) -> str:
        return show.link("gpu_miner", challenge.miner_id, challenge.miner)

    @display(description="Device")
    def device_shown(self, challenge: Challenge) -> str:
        return show.link("gpu_device", challenge.device_id, challenge.device.model)

    @display(description="Work")
    def work(self, challenge: Challenge) -> str:
        return f"{challenge.steps} × {challenge.rounds} rounds of n = {challenge.n}"  # noqa: RUF001 - the sign

    @display(description="Took")
    def took(self, challenge: Challenge) -> str:
        if challenge.committed_at is None:
            return show.NOTHING
        return show.duration((challenge.committed_at - challenge.issued_at).total_seconds() * 1000)

    @display(description="Measured", ordering="tflops")
    def measured(self, challenge: Challenge) -> str:
        return show.number(challenge.tflops, "TFLOPS", 3)

    @display(description="Seed")
    def seed_shown(self, challenge: Challenge) -> str:
        return show.code(challenge.seed)

    @display(description="Nonce that picked the rows")
    def nonce_shown(self, challenge: Challenge) -> str:
        return show.code(challenge.nonce)

    @display(description="Committed roots")
    def roots_shown(self, challenge: Challenge) -> str:
        return show.document(challenge.roots or None)


@admin.register(Heartbeat)
class HeartbeatAdmin(ReadOnlyAdmin):
    icon = "ecg_heart"
    list_display = ("id", "miner_shown", "sequence", "head_short", "signed", "received_at")
    list_select_related = ("miner",)
    search_fields = ("id", "miner__id")
    search_help_text = "Number or miner"
    ordering = ("-id",)
    fields = (("miner_shown", "sequence"), "previous_shown", "head_shown", "signature_shown", "received_at")

    @display(description="Miner")
    def miner_shown(self, beat: Heartbeat) -> str:
        return show.link("gpu_miner", beat.miner_id, beat.miner)

    @display(description="Head")
    def head_short(self, beat: Heartbeat) -> str:
        return show.short(beat.head)

    @display(description="Signed", boolean=True)
    def signed(self, beat: Heartbeat) -> bool:
        return bool(beat.signature)

    @display(description="Previous head")
    def previous_shown(self, beat: Heartbeat) -> str:
        return show.code(beat.previous)

    @display(description="Head")
    def head_shown(self, beat: Heartbeat) -> str:
        return show.code(beat.head)

    @display(description="Signature")
    def signature_shown(self, beat: Heartbeat) -> str:
        return show.code(beat.signature)


@admin.register(Nonce)
class NonceAdmin(ReadOnlyAdmin):
    icon = "pin"
    list_display = ("value_shown", "key_shown", "created_at", "used_at")
    list_select_related = ("key",)
    search_fields = ("key__id",)
    search_help_text = "Id of the API key"
    ordering = ("-created_at",)
    fields = ("value_shown", "key_shown", ("created_at", "used_at"))

    @display(description="Nonce")
    def value_shown(self, nonce: Nonce) -> str:
        return show.short(nonce.value)

    @display(description="API key")
    def key_shown(self, nonce: Nonce) -> str:
        return show.link("accounts_apikey", nonce.key_id, nonce.key)
