"""What is for sale: offers, the devices in them, and how each came to its state."""

from django.conf import settings
from django.contrib.postgres.fields import ArrayField
from django.contrib.postgres.indexes import GinIndex
from django.db import models
from django.db.models import Q
from django.db.models.functions import Lower

from aitbc.core.fields import AmountField
from aitbc.core.ids import uuid7
from aitbc.core.principal import Principal
from apps.gpu.models import Device


def owned_by(seller: Principal, prefix: str = "") -> Q:
    """Whose miner it is: the key's that registered it, or any key of its owner with `offers:write`."""
    own = Q(**{f"{prefix}key_id": seller.key_id})
    return own | Q(**{f"{prefix}owner_id": seller.user_id}) if seller.has("offers:write") else own


class Offer(models.Model):
    """Devices of one miner at a price. Model, memory, region and `verified` are copies for the search."""

    class State(models.TextChoices):
        LISTED = "listed", "Listed: jobs may name it"
        PAUSED = "paused", "Paused: see the reason"
        SUSPENDED = "suspended", "Suspended by the platform"
        DELISTED = "delisted", "Delisted for good"

    class Reason(models.TextChoices):
        SELLER = "seller", "its seller decided so"
        PLATFORM = "platform", "the platform decided so"
        MINER_LEFT = "miner_left", "its miner is not there"
        MINER_DRAINING = "miner_draining", "its miner finishes its work and takes no more"
        DEVICE_GONE = "device_gone", "its miner no longer has one of the devices"
        DEVICE_TAKEN = "device_taken", "one of the devices is in another listed offer"
        HARDWARE_CHANGED = "hardware_changed", "the devices are no longer of the model that was listed"
        HARDWARE_DOUBTED = "hardware_doubted", "its hardware did not prove to be what it claims"
        KINDS_GONE = "kinds_gone", "its miner no longer runs all of these kinds"

    # Paused for one of these, an offer comes back by itself when the reason is gone.
    PASSING = {*Reason} - {Reason.SELLER, Reason.PLATFORM}

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    miner = models.ForeignKey("gpu.Miner", on_delete=models.PROTECT, related_name="offers")
    devices: "models.ManyToManyField[Device, OfferDevice]" = models.ManyToManyField(
        "gpu.Device", through="OfferDevice", related_name="offers"
    )
    model = models.CharField(max_length=100)
    device_count = models.PositiveSmallIntegerField()
    memory_mb = models.PositiveIntegerField(help_text="Of the smallest device.")
    price = AmountField(help_text="On demand, smallest units of the asset per device second.")
    asset = models.CharField(max_length=12, default="AIT")
    spot_price = AmountField(null=True, help_text="Least bid per device second; null: not sold as spot.")
    min_seconds = models.PositiveIntegerField(null=True)
    max_seconds = models.PositiveIntegerField(null=True)
    reserved_discount_bps = models.PositiveSmallIntegerField(null=True, help_text="Null: not sold in advance.")
    sla_bps = models.PositiveSmallIntegerField(null=True, help_text="Promised availability; null: no SLA.")
    sla_only = models.BooleanField(default=False, help_text="Not sold while the bond does not cover it.")
    region = models.CharField(max_length=40)
    kinds = ArrayField(models.CharField(max_length=40))
    state = models.CharField(max_length=9, choices=State, default=State.LISTED)
    reason = models.CharField(max_length=20, choices=Reason, blank=True, help_text="Why it is not listed.")
    verified = models.BooleanField(help_text="All devices passed the platform's hardware challenge.")
    available_from = models.DateTimeField()
    created_at = models.DateTimeField(auto_now_add=True)
    updated_at = models.DateTimeField(auto_now=True)

    class Meta:
        ordering = ("-id",)
        indexes = [
            models.Index("state", "price", "id", name="offer_by_price"),
            models.Index("state", "memory_mb", "id", name="offer_by_memory"),
            models.Index("state", Lower("model"), "price", "id", name="offer_by_model"),
            models.Index("state", "region", "price", "id", name="offer_by_region"),
            models.Index("state", "verified", "price", "id", name="offer_by_verified"),
            GinIndex(fields=["kinds"], name="offer_by_kind"),
        ]
        constraints = [
            models.CheckConstraint(condition=Q(price__gt=0), name="offer_price_positive"),
            models.CheckConstraint(condition=Q(device_count__gt=0), name="offer_has_devices"),
            models.CheckConstraint(condition=Q(memory_mb__gt=0), name="offer_has_memory"),
            models.CheckConstraint(condition=Q(kinds__len__gt=0), name="offer_has_kinds"),
            models.CheckConstraint(
                condition=Q(state__in=("listed", "paused", "suspended", "delisted")), name="offer_state_known"
            ),
            models.CheckConstraint(
                condition=Q(state="listed", reason="") | (~Q(state="listed") & ~Q(reason="")),
                name="offer_reason_unless_listed",
            ),
            # What the devices' rows refer to, so that the database itself copies the state to them; and the
            # order of the newest.
            models.UniqueConstraint(fields=["state", "id"], name="offer_by_age"),
        ]

    def __str__(self) -> str:
        return f"{self.device_count} x {self.model} in {self.region}"


class OfferDevice(models.Model):
    """A device in an offer. `state` follows the offer's by a foreign key that cascades (sql/rules.sql)."""

    offer = models.ForeignKey(Offer, on_delete=models.CASCADE, related_name="parts", db_constraint=False)
    device = models.ForeignKey("gpu.Device", on_delete=models.PROTECT, related_name="+")
    state = models.CharField(max_length=9, choices=Offer.State, default=Offer.State.LISTED)

    class Meta:
        db_table = "marketplace_offer_device"
        constraints = [
            models.UniqueConstraint(fields=["offer", "device"], name="offerdevice_once"),
            models.UniqueConstraint(fields=["device"], condition=Q(state="listed"), name="offerdevice_listed_once"),
        ]

    def __str__(self) -> str:
        return f"{self.device_id} in {self.offer_id}"


class OfferTransition(models.Model):
    """The log of an offer's states: what, why, and by whom (nobody, when it followed its miner)."""

    id = models.BigAutoField(primary_key=True)
    offer = models.ForeignKey(Offer, on_delete=models.CASCADE, related_name="transitions")
    before = models.CharField(max_length=9, choices=Offer.State, blank=True)
    after = models.CharField(max_length=9, choices=Offer.State)
    reason = models.CharField(max_length=20, choices=Offer.Reason, blank=True)
    note = models.CharField(max_length=300, blank=True)
    by = models.ForeignKey(settings.AUTH_USER_MODEL, null=True, on_delete=models.PROTECT, related_name="+")
    at = models.DateTimeField(auto_now_add=True)

    class Meta:
        db_table = "marketplace_offer_transition"
        ordering = ("id",)

    def __str__(self) -> str:
        return f"{self.offer_id}: {self.before or 'new'} -> {self.after}"
