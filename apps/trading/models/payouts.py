"""Earnings that leave for a chain: pull only, one leaf per provider and batch."""

from django.conf import settings
from django.db import models
from django.db.models import Q
from django.db.models.functions import Now

from aitbc.core.fields import AddressField, AmountField, HashField
from apps.trading.models.reviews import Reviewed


class PayoutTarget(models.Model):
    """A provider with `payout=chain`: his available balance goes to this address."""

    user = models.OneToOneField(settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="payout_target")
    network = models.CharField(max_length=20)
    address = AddressField()
    set_at = models.DateTimeField(help_text="a new address waits before it is paid (protocols 9)")

    def __str__(self) -> str:
        return f"payouts of {self.user_id}"


class PayoutBatch(Reviewed):
    class State(models.TextChoices):
        REVIEW = "review", "In review: a second person must approve it"
        SEALED = "sealed", "Sealed: amounts held"
        FINAL = "final", "Final on the chain: claimable"
        FAILED = "failed", "Failed: amounts released"
        LAPSED = "lapsed", "Lapsed: nobody approved it in time, amounts released"

    id = models.UUIDField(primary_key=True)
    network = models.CharField(max_length=20)
    state = models.CharField(max_length=8, choices=State, default=State.SEALED)
    root = HashField()
    total = AmountField()
    count = models.PositiveIntegerField()
    tx_hash = HashField(null=True)
    block = models.BigIntegerField(null=True)
    gas_used = models.BigIntegerField(null=True)
    created_at = models.DateTimeField(db_default=Now())
    finalized_at = models.DateTimeField(null=True)

    class Meta:
        ordering = ("-id",)
        verbose_name_plural = "payout batches"
        constraints = [*Reviewed.Meta.constraints]

    def __str__(self) -> str:
        return f"payout {self.id}"


class PayoutLeaf(models.Model):
    """One provider's share; `hold` is the ledger hold that the batch's outcome resolves."""

    batch = models.ForeignKey(PayoutBatch, on_delete=models.PROTECT, related_name="leaves")
    position = models.PositiveIntegerField()
    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="payouts")
    address = AddressField()
    amount = AmountField()
    hold = models.UUIDField(unique=True)
    claim_tx = HashField(null=True)
    claimed_at = models.DateTimeField(null=True)

    class Meta:
        verbose_name_plural = "payout leaves"
        constraints = [
            models.UniqueConstraint(fields=["batch", "position"], name="payoutleaf_position_once"),
            models.UniqueConstraint(fields=["batch", "user"], name="payoutleaf_user_once_per_batch"),
            models.CheckConstraint(condition=Q(amount__gt=0), name="payoutleaf_amount_positive"),
        ]
        indexes = [models.Index(fields=["user", "-id"], name="payoutleaf_of_user")]

    def __str__(self) -> str:
        return f"{self.position} of {self.batch_id}"


class ReserveCheck(models.Model):
    """Ledger against chain at one final block; every check is kept for those that differ, else the last."""

    network = models.CharField(max_length=20)
    asset = models.CharField(max_length=12)
    block_number = models.BigIntegerField()
    block_hash = HashField()
    contract = AmountField(help_text="the settlement contract's balance")
    unswept = AmountField(help_text="what lies at deposit addresses")
    liabilities = AmountField(help_text="what the ledger owes: the mirror account, negated")
    pending = AmountField(help_text="net flow of final events that the ledger has not posted yet")
    difference = AmountField(help_text="contract + unswept - liabilities - pending; anything but 0 is an alarm")
    proof = models.UUIDField(null=True, unique=True, help_text="A tree of what is owed, of this snapshot.")
    root = HashField(null=True)
    owed = AmountField(null=True, help_text="to all users: the sum at the root")
    users = models.PositiveIntegerField(null=True)
    checked_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ("-id",)
        indexes = [models.Index(fields=["network", "asset", "-id"], name="reservecheck_latest")]

    def __str__(self) -> str:
        return f"{self.asset} at block {self.block_number}"
