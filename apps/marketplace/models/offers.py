"""What is for sale: offers, the devices in them, and how each came to its state."""

from django.conf import settings
from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models import Q

from aitbc.core.fields import AmountField
from aitbc.core.ids import uuid7
from aitbc.core.principal import Principal
from apps.gpu.models import Device


def owned_by(seller: Principal, prefix: str = "") -> Q:
    """Whose miner it is: the key's that registered it, or any key of its owner with `offers:write`."""
    own = Q(**{f"{prefix}key_id": seller.key_id})
    return own | Q(**{f"{prefix}owner_id": seller.user_id}) if seller.has("offers:write") else own


class Offer(models.Model):
    """Devices of one miner at a price, with copies of what is known of them: the search reads one table.

    sql/search.sql adds what is computed from a row alone (price per TFLOPS, score ...), rules and indexes.
    """

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
        EXPIRED = "expired", "its time was over"

    # Paused for one of these, an offer comes back by itself when the reason is gone.
    PASSING = {*Reason} - {Reason.SELLER, Reason.PLATFORM, Reason.EXPIRED}

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
    sla_bps = models.PositiveSmallIntegerField(null=True, help_text="Promised availability; null: no SLA.")
    sla_only = models.BooleanField(
        default=False, db_default=False, help_text="Not sold while the bond does not cover it."
    )
    region = models.CharField(max_length=40)
    kinds = ArrayField(models.CharField(max_length=40))
    state = models.CharField(max_length=9, choices=State, default=State.LISTED)
    reason = models.CharField(max_length=20, choices=Reason, blank=True, help_text="Why it is not listed.")
    verified = models.BooleanField(help_text="All devices passed the platform's hardware challenge.")
    available_from = models.DateTimeField()
    expires_at = models.DateTimeField(null=True, help_text="Withdrawn then, and not found any more.")
    spot_price = AmountField(null=True, help_text="Least for a bid, as the price; null: not sold as spot.")
    reserved_discount_bps = models.PositiveSmallIntegerField(null=True, help_text="Null: not sold as reserved.")
    min_seconds = models.PositiveIntegerField(null=True)
    max_seconds = models.PositiveIntegerField(null=True)
    # Copies; null is what nobody knows. Of several devices the least, as with the memory.
    device_kind = models.CharField(max_length=4, null=True)
    cuda = models.PositiveIntegerField(null=True, help_text="1000 times the major version, plus the minor one.")
    driver = models.CharField(max_length=40, null=True)
    tflops = models.FloatField(null=True)
    memory_gbps = models.FloatField(null=True)
    dl_score = models.FloatField(null=True)
    reliability = models.FloatField(null=True)
    reliability_low = models.FloatField(null=True)
    reliability_high = models.FloatField(null=True)
    reliability_samples = models.PositiveIntegerField(null=True)
    concurrency = models.PositiveSmallIntegerField(null=True)
    sandbox = models.CharField(max_length=20, null=True)
    first_party = models.BooleanField(null=True)
    created_at = models.DateTimeField(auto_now_add=True)
    updated_at = models.DateTimeField(auto_now=True)

    class Meta:
        ordering = ("-id",)
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
