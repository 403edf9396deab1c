"""Quotes and the orders that they become; `sql/orders.sql` alone writes them and has their rules."""

from django.conf import settings
from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models import Q

from aitbc.core.fields import AmountField


class Kind(models.TextChoices):
    ON_DEMAND = "on_demand", "On demand"
    SPOT = "spot", "Spot: a higher bid or an on-demand order ends it, after notice"
    RESERVED = "reserved", "Reserved: prepaid, at a discount"
    AUCTION = "auction", "Won in an auction"


class Let(models.Model):
    """What a quote promises and an order owes: devices, rate (units a second, all devices, fee inside) and time."""

    id = models.UUIDField(primary_key=True)
    kind = models.CharField(max_length=9, choices=Kind)
    offer = models.ForeignKey("marketplace.Offer", on_delete=models.PROTECT, related_name="%(class)ss")
    devices = ArrayField(models.UUIDField())
    client = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="%(class)ss")
    rate = AmountField()
    seconds = models.PositiveIntegerField()
    total = AmountField()
    fee_bps = models.PositiveSmallIntegerField()
    bid = AmountField(null=True, help_text="Spot: units per device second.")
    wants = models.JSONField(help_text="What any offer must have that takes its place.")
    failover = models.BooleanField(help_text="Move to the next best offer by itself.")
    starts_at = models.DateTimeField()
    created_at = models.DateTimeField()

    class Meta:
        abstract = True


class Quote(Let):
    """A price that holds until `expires_at`. `firm`: its devices are kept for it, under its own id."""

    class State(models.TextChoices):
        OPEN = "open", "Open"
        ACCEPTED = "accepted", "Accepted: see the order of the same id"
        EXPIRED = "expired", "Expired: its deposit returned"
        FORFEITED = "forfeited", "Expired: its deposit went to the provider"

    state = models.CharField(max_length=9, choices=State)
    firm = models.BooleanField()
    deposit = AmountField(help_text="Held under the quote's id.")
    expires_at = models.DateTimeField()
    resolved_at = models.DateTimeField(null=True)

    class Meta:
        ordering = ("-id",)
        indexes = [
            models.Index(fields=["expires_at"], condition=Q(state="open"), name="quote_due"),
            models.Index(fields=["client", "resolved_at"], name="quote_of_client"),
        ]

    def __str__(self) -> str:
        return f"quote {self.id}"


class Order(Let):
    """A lease of devices. At its end paid + fee + refunded = total."""

    class State(models.TextChoices):
        ACCEPTED = "accepted", "Accepted: escrowed, not started"
        ACTIVE = "active", "Active: paid by the second"
        NOTICE = "notice", "Notice: ends soon, outbid"
        COMPLETED = "completed", "Completed"
        CANCELED = "canceled", "Canceled: see who"
        MISSED = "missed", "Missed: not started in time"
        FAILED = "failed", "Failed: its miner left"
        EVICTED = "evicted", "Evicted: outbid"

    LIVE = (State.ACCEPTED, State.ACTIVE, State.NOTICE)
    state = models.CharField(max_length=9, choices=State)
    miner = models.ForeignKey("gpu.Miner", on_delete=models.PROTECT, related_name="orders")
    provider = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="orders_served")
    start_deadline = models.DateTimeField()
    started_at = models.DateTimeField(null=True)
    ends_at = models.DateTimeField()
    ended_at = models.DateTimeField(null=True)
    ended_by = models.CharField(max_length=8, blank=True, help_text="client, provider or platform.")
    reason = models.CharField(max_length=300, blank=True)
    hold = models.UUIDField(null=True, help_text="The escrow until it starts.")
    stream = models.UUIDField(null=True, help_text="Pays it from then on.")
    paid = AmountField(default=0, help_text="To the provider, fee off; at the end.")
    fee = AmountField(default=0)
    refunded = AmountField(default=0)
    sla_bps = models.PositiveSmallIntegerField(null=True, help_text="Promised availability; null: no SLA.")
    bond_hold = models.UUIDField(null=True)
    max_credit = AmountField(default=0, help_text="What `bond_hold` reserved.")
    credit = AmountField(null=True, help_text="Paid out of the bond; null until it is settled.")
    evicted_by = models.UUIDField(null=True)
    compensation = AmountField(null=True, help_text="To one that was evicted; null until it is settled.")
    moved_from = models.UUIDField(null=True)
    moved_to = models.UUIDField(null=True)
    move_at = models.DateTimeField(null=True, help_text="When to look for another offer again.")
    due_at = models.DateTimeField(null=True, help_text="When the timer must look at it.")

    class Meta:
        ordering = ("-id",)
        indexes = [
            models.Index(fields=["due_at"], condition=Q(due_at__isnull=False), name="order_due"),
            models.Index(fields=["client", "-id"], name="order_of_client"),
            models.Index(fields=["provider", "-id"], name="order_of_provider"),
            models.Index(fields=["miner", "state"], name="order_of_miner"),
            models.Index(fields=["evicted_by"], condition=Q(evicted_by__isnull=False), name="order_evictor"),
        ]

    def __str__(self) -> str:
        return f"order {self.id}"


class BondWithdrawal(models.Model):
    """Part of a bond on its way back, held under this id until the dispute window is over."""

    id = models.UUIDField(primary_key=True)
    owner = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="+")
    amount = AmountField()
    due_at = models.DateTimeField()
    done_at = models.DateTimeField(null=True)

    class Meta:
        db_table = "marketplace_bond_withdrawal"
        ordering = ("-id",)
        indexes = [models.Index(fields=["due_at"], condition=Q(done_at__isnull=True), name="bond_withdrawal_due")]

    def __str__(self) -> str:
        return f"withdrawal {self.id}"
