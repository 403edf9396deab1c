"""Miners, their devices and how they proved them."""

from datetime import timedelta

import orjson
from django.contrib import admin
from django.db.models import Count, Q, QuerySet
from django.http import HttpRequest
from django.template.loader import render_to_string
from unfold.decorators import display

from aitbc.core import clock, show
from aitbc.core.columns import column, state
from aitbc.core.pages import Operation, ReadOnlyAdmin, ReadOnlyInline, once
from apps.gpu.models import Challenge, Device, Heartbeat, Job, Miner, Nonce
from apps.gpu.services import moderation
from apps.trading.admin.amounts import amount
from apps.trading.services.escrow import call

STATES = {"online": "success", "suspect": "warning", "draining": "info", "dead": "danger", "suspended": "danger"}
CHALLENGES = {"passed": "success", "failed": "danger", "issued": "info", "committed": "warning"}
METRICS = (
    ("utilization", "Utilisation, %"),
    ("memory_used_mb", "Memory in use, MiB"),
    ("temperature_c", "Temperature, °C"),
    ("power_w", "Power, W"),
)
CHALLENGES = {"passed": "success", "failed": "danger", "issued": "info", "committed": "warning", "walked": "warning"}
OPERATIONS = (
    Operation(
        name="drain",
        label="Drain",
        icon="water_drop",
        question="Drain this miner?",
        effect="It finishes the work that it holds and gets no more.",
        done="Miners drained",
        service=lambda miner, *_: moderation.drain(miner=miner.pk),
        is_apt=lambda miner: miner.state in (Miner.State.ONLINE, Miner.State.SUSPECT),
    ),
    Operation(
        name="suspend",
        label="Suspend",
        icon="block",
        question="Suspend this miner?",
        effect="Its leases go back to the queue now, and it gets no more work.",
        done="Miners suspended",
        service=lambda miner, *_: moderation.suspend(miner=miner.pk),
        is_apt=lambda miner: miner.state != Miner.State.SUSPENDED,
    ),
    Operation(
        name="resume",
        label="Resume",
        icon="play_circle",
        question="Let this miner work again?",
        effect="It counts as suspect until its next heartbeat.",
        done="Miners resumed",
        service=lambda miner, *_: moderation.resume(miner=miner.pk),
        is_apt=lambda miner: miner.state in (Miner.State.DRAINING, Miner.State.SUSPENDED),
    ),
)


def _measured(device: Device) -> str:
    return show.verdict(device.verified, show.number(device.tflops, "TFLOPS", 3) if device.verified else "not verified")


def _telemetry(device: Device) -> str:
    if device.sampled_at is None:
        return "none yet"
    parts = (
        (device.utilization, "%"),
        (device.memory_used_mb, "MiB used"),
        (device.temperature_c, "°C"),
        (device.power_w, "W"),
    )
    return ", ".join(show.number(value, unit, 0) for value, unit in parts if value is not None)


def _reliability(miner: Miner) -> str:
    parts = (miner.reliability, miner.reliability_low, miner.reliability_high)
    shown = "{} ({} to {})".format(*(show.number(part, "", 3) for part in parts))
    return show.NOTHING if miner.reliability is None else f"{shown} of {miner.reliability_samples}"


class DeviceColumns:
    """What the list of devices and the page of a miner show alike."""

    memory = column("Memory", "memory_mb", "{} MiB".format, ordering="memory_mb")
    measured = column("Measured", _measured, ordering="tflops")
    telemetry = column("Telemetry", _telemetry)


class DevicesOfMiner(DeviceColumns, ReadOnlyInline):
    model = Device
    fields = readonly_fields = ("device", "kind", "memory", "measured", "telemetry", "sampled_at", "active")
    ordering = ("-active", "model")

    device = column("Device", lambda device: show.link("gpu_device", device.pk, device.model))


@admin.register(Miner)
class MinerAdmin(ReadOnlyAdmin):
    icon = "memory"
    list_display = (
        "name", "status", "owner_shown", "region", "kinds_shown", "slots", "price_amount", "sandbox",
        "reliability_shown", "last_seen_at",
    )  # fmt: skip
    list_select_related = ("owner",)
    list_filter = ("state", "first_party")
    search_fields = ("id", "address", "owner__email", "name")
    search_help_text = "Id, address, name, or the owner's e-mail"
    operations = OPERATIONS
    inlines = (DevicesOfMiner,)
    sections = {
        None: (("name", "status"), ("owner_shown", "key_shown"), ("region", "origin"), ("id", "reliability_shown")),
        "Work": (("kinds_shown", "models_shown"), ("slots", "price_amount"), "sandbox", "holds"),
        "Life": (("created_at", "last_seen_at"), "sequence", "address_shown", "head_shown"),
    }

    status = state(STATES)
    reliability_shown = column("Reliability, 95 %", _reliability, ordering="reliability")
    owner_shown = column("Owner", "owner", show.to, ordering="owner")
    key_shown = column("API key", "key", show.to)
    kinds_shown = column("Kinds", "kinds", ", ".join)
    models_shown = column("Models", lambda miner: ", ".join(miner.model_names) or show.NOTHING)
    slots = column("Busy slots", lambda miner: f"{miner.busy} of {miner.concurrency}")
    price_amount = amount("Per device second", "price", ordering="price")
    address_shown = column("Address", "address", show.code)
    head_shown = column("Head of its heartbeats", "head", show.code)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Miner]:
        miners: QuerySet[Miner] = super().get_queryset(request)
        return miners.annotate(busy=Count("jobs", filter=Q(jobs__state__in=("leased", "running"))))

    @display(description="Run by", ordering="first_party")
    def origin(self, miner: Miner) -> str:
        return "the platform: a Celery worker" if miner.first_party else "its owner"

    @display(description="Holds now")
    @once
    def holds(self, miner: Miner) -> str:
        held = Job.objects.filter(miner=miner, state__in=("leased", "running")).order_by("leased_at")[:20]
        lines = [(show.link("gpu_job", job.pk), job.kind, job.state, show.moment(job.leased_at)) for job in held]
        return show.table(("Job", "Kind", "State", "Leased"), lines, empty="Nothing.")


@admin.register(Device)
class DeviceAdmin(DeviceColumns, ReadOnlyAdmin):
    icon = "developer_board"
    list_display = ("model", "miner_shown", "kind", "memory", "measured", "dl", "telemetry", "sampled_at", "active")
    list_select_related = ("miner",)
    list_filter = ("kind", "verified", "active")
    search_fields = ("id", "uuid", "miner__id", "miner__owner__email")
    search_help_text = "Id, uuid, miner, or the owner's e-mail"
    sections = {
        None: (("model", "kind"), ("miner_shown", "active"), ("uuid", "id")),
        "As detected": (("memory", "cuda", "driver"), ("claimed_tflops", "claimed_memory_gbps")),
        "As the platform measured": (
            ("measured", "verified_at"),
            ("tflops", "memory_gbps"),
            ("verified_model", "dl"),
            "doubt",
            "challenged",
        ),
        "Telemetry": (("telemetry", "sampled_at"), "history"),
    }

    class Media:
        js = ("console/telemetry.js",)

    miner_shown = column("Miner", "miner", show.to, ordering="miner")
    dl = column("dl_score", lambda device: show.number(device.dl_score, "", 1), ordering="dl_score")

    @display(description="Last challenges")
    @once
    def challenged(self, device: Device) -> str:
        lines = [
            (show.link("gpu_challenge", c.pk), c.proof, c.state, show.moment(c.issued_at), c.reason)
            for c in device.challenges.order_by("-id")[:5]
        ]
        return show.table(("Challenge", "Proof", "State", "Issued", "Why"), lines, empty="None yet.")

    @display(description="The last 24 hours")
    @once
    def history(self, device: Device) -> str:
        now = clock.database_now()
        windows = orjson.loads(call("gpu_device_telemetry", None, device.pk, now - timedelta(days=1), now, 300))
        return render_to_string("console/telemetry.html", {"points": windows["items"], "metrics": METRICS})


def _took(challenge: Challenge) -> str:
    if challenge.committed_at is None:
        return show.NOTHING
    return show.duration((challenge.committed_at - challenge.issued_at).total_seconds() * 1000)


@admin.register(Challenge)
class ChallengeAdmin(ReadOnlyAdmin):
    icon = "fitness_center"
    list_display = ("ident", "status", "miner_shown", "device_shown", "work", "took", "measured", "issued_at")
    list_select_related = ("miner", "device")
    list_filter = ("state",)
    search_fields = ("id", "miner__id", "device__uuid")
    search_help_text = "Id, miner, or the device's uuid"
    sections = {
        None: (("status", "reason"), ("miner_shown", "device_shown"), "id"),
        "Work": (("work", "took"), "measured", "seed_shown", "nonce_shown", "roots_shown"),
        "Times": (("issued_at", "committed_at"), "deadline"),
    }

    status = state(CHALLENGES)
    miner_shown = column("Miner", "miner", show.to, ordering="miner")
    device_shown = column("Device", lambda row: show.link("gpu_device", row.device_id, row.device.model))
    work = column("Work", lambda row: f"{row.steps} × {row.rounds} rounds of n = {row.n}")  # noqa: RUF001
    took = column("Took", _took)
    measured = column("Measured", lambda row: show.number(row.tflops, "TFLOPS", 3), ordering="tflops")
    seed_shown = column("Seed", "seed", show.code)
    nonce_shown = column("Nonce that picked the rows", "nonce", show.code)
    roots_shown = column("Committed roots", lambda row: show.document(row.roots or None))


@admin.register(Heartbeat)
class HeartbeatAdmin(ReadOnlyAdmin):
    icon = "ecg_heart"
    list_display = ("id", "miner_shown", "sequence", "head_short", "signed", "received_at")
    list_select_related = ("miner",)
    search_fields = ("id", "miner__id")
    search_help_text = "Number or miner"
    ordering = ("-id",)
    fields = (("miner_shown", "sequence"), "previous_shown", "head_shown", "signature_shown", "received_at")

    miner_shown = column("Miner", "miner", show.to)
    head_short = column("Head", "head", show.short)
    signed = column("Signed", "signature", bool, boolean=True)
    previous_shown = column("Previous head", "previous", show.code)
    head_shown = column("Head", "head", show.code)
    signature_shown = column("Signature", "signature", show.code)


@admin.register(Nonce)
class NonceAdmin(ReadOnlyAdmin):
    icon = "pin"
    list_display = ("value_shown", "key_shown", "created_at", "used_at")
    list_select_related = ("key",)
    search_fields = ("key__id",)
    search_help_text = "Id of the API key"
    ordering = ("-created_at",)
    fields = ("value_shown", "key_shown", ("created_at", "used_at"))

    value_shown = column("Nonce", "value", show.short)
    key_shown = column("API key", "key", show.to)
