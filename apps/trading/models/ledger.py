"""The double-entry ledger. Python reads these tables; only the SQL function `ledger_apply` writes them."""

from django.conf import settings
from django.contrib.postgres.indexes import BrinIndex
from django.db import models
from django.db.models import F, Func, Q
from django.db.models.functions import Cast

from aitbc.core.fields import AmountField


def xact_field() -> models.BigIntegerField[int, int]:
    """The transaction that wrote the row: the hash chain seals whole transactions in this order."""
    current = Cast(Func(function="pg_current_xact_id"), models.TextField())
    return models.BigIntegerField(db_default=Cast(current, models.BigIntegerField()), editable=False)


class Asset(models.Model):
    code = models.CharField(primary_key=True, max_length=12)
    name = models.CharField(max_length=60)
    decimals = models.PositiveSmallIntegerField(help_text="Digits after the point of one whole unit.")

    def __str__(self) -> str:
        return self.code


class Account(models.Model):
    """A balance of one owner, asset and kind; `posted` is what the entries sum to, `held` is reserved."""

    class Kind(models.TextChoices):
        AVAILABLE = "available", "Available"
        MATURING = "maturing", "Maturing: earned, in the dispute window"
        ESCROW = "escrow", "Escrow: funds of a stream"
        BOND = "bond", "Bond: behind what a provider promises"
        FEES = "fees", "Platform fees"
        TREASURY = "treasury", "Treasury"
        EXTERNAL = "external", "External: mirror of the reserves on a chain"
        CLAIMABLE = "claimable", "Claimable on a chain"
        UNATTRIBUTED = "unattributed", "Unattributed tokens received on a chain"

    owner = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        null=True,
        blank=True,
        on_delete=models.PROTECT,
        related_name="accounts",
        db_index=False,
    )
    asset = models.ForeignKey(Asset, on_delete=models.PROTECT, db_index=False)
    kind = models.CharField(max_length=12, choices=Kind)
    chain = models.CharField(max_length=20, blank=True, help_text="Network of external and claimable accounts.")
    shard = models.SmallIntegerField(default=0, help_text="Hot accounts without a limit are spread over shards.")
    posted = AmountField(default=0)
    held = AmountField(default=0)
    overdraft = models.BooleanField(default=False, help_text="Mirrors value outside, so it may go negative.")
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["owner", "asset", "kind", "chain", "shard"], name="account_one_per_kind", nulls_distinct=False
            ),
            models.CheckConstraint(condition=Q(held__gte=0), name="account_held_not_negative"),
            models.CheckConstraint(
                condition=Q(overdraft=True) | Q(posted__gte=F("held")), name="account_not_overdrawn"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.kind} {self.asset_id} of {self.owner_id or self.chain or 'platform'}"


class Transfer(models.Model):
    """A movement of one amount: posted at once, or first held and then posted, voided or expired."""

    class State(models.TextChoices):
        PENDING = "pending", "Pending: held on the debit account"
        POSTED = "posted", "Posted"
        VOIDED = "voided", "Voided"
        EXPIRED = "expired", "Expired: its time was over before it was resolved"

    id = models.UUIDField(primary_key=True)
    kind = models.CharField(max_length=24)
    state = models.CharField(max_length=8, choices=State)
    # No index by account or state: entries are read by account, and a hold's resolution stays a HOT update.
    debit = models.ForeignKey(Account, on_delete=models.PROTECT, related_name="+", db_constraint=False, db_index=False)
    credit = models.ForeignKey(
        Account,
        null=True,
        on_delete=models.PROTECT,
        related_name="+",
        db_constraint=False,
        db_index=False,
        help_text="Empty for a hold, whose payee is known when it is resolved, and for what voids one.",
    )
    amount = AmountField()
    hold = models.UUIDField(null=True, help_text="The hold that this transfer resolves.")
    reference = models.UUIDField(null=True, help_text="What it is for: a job, a deposit, a batch.")
    created_at = models.DateTimeField()
    resolved_at = models.DateTimeField(null=True)
    expires_at = models.DateTimeField(null=True, help_text="Of a hold with a time-out.")
    xact = xact_field()

    class Meta:
        indexes = [
            models.Index(fields=["reference"], name="transfer_reference"),
            BrinIndex(fields=["xact"], name="transfer_xact", autosummarize=True),
        ]
        constraints = [
            models.CheckConstraint(condition=Q(amount__gt=0), name="transfer_amount_positive"),
            models.CheckConstraint(
                condition=Q(credit__isnull=False, hold__isnull=True)
                | Q(credit__isnull=False, state="posted")
                | Q(credit__isnull=True, hold__isnull=True)
                | Q(credit__isnull=True, hold__isnull=False, state__in=["voided", "expired"]),
                name="transfer_sides",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.kind} {self.id}"


class HoldTimer(models.Model):
    """When a hold with a time-out is due; gone once the hold is final and the time has passed."""

    hold = models.UUIDField(primary_key=True)
    due = models.DateTimeField(db_index=True)

    def __str__(self) -> str:
        return f"timer of {self.hold}"


class Entry(models.Model):
    """One leg: positive credits the account, negative debits it. Never changed, never deleted."""

    id = models.BigAutoField(primary_key=True)
    transfer = models.ForeignKey(Transfer, on_delete=models.PROTECT, db_constraint=False, db_index=False)
    account = models.ForeignKey(Account, on_delete=models.PROTECT, db_constraint=False, db_index=False)
    amount = AmountField()
    created_at = models.DateTimeField()
    xact = xact_field()

    class Meta:
        indexes = [
            models.Index(fields=["account", "-id"], name="entry_of_account"),
            BrinIndex(fields=["xact"], name="entry_xact", autosummarize=True),
        ]
        constraints = [models.CheckConstraint(condition=~Q(amount=0), name="entry_not_zero")]
        verbose_name_plural = "entries"

    def __str__(self) -> str:
        return f"entry {self.pk}"
