"""Money that came in from a chain."""

from django.conf import settings
from django.db import models

from aitbc.core.fields import AddressField, AmountField, HashField


class DepositAddress(models.Model):
    """A keyless address of one user; without a user it is the treasury's."""

    network = models.CharField(max_length=20)
    user = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, on_delete=models.PROTECT, related_name="deposit_addresses"
    )
    address = AddressField()
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        verbose_name_plural = "deposit addresses"
        constraints = [
            models.UniqueConstraint(
                fields=["network", "user"], name="depositaddress_once_per_user", nulls_distinct=False
            ),
            models.UniqueConstraint(fields=["network", "address"], name="depositaddress_once"),
        ]

    def __str__(self) -> str:
        return str(self.address)


class Deposit(models.Model):
    """A final inflow and what the ledger made of it; its id is the ledger transfer's."""

    class Booked(models.TextChoices):
        USER = "user", "to the user"
        TREASURY = "treasury", "to the treasury"
        UNATTRIBUTED = "unattributed", "unattributed: nobody asked for it"

    id = models.UUIDField(primary_key=True)
    network = models.CharField(max_length=20)
    user = models.ForeignKey(settings.AUTH_USER_MODEL, null=True, on_delete=models.PROTECT, related_name="deposits")
    booked = models.CharField(max_length=12, choices=Booked)
    asset = models.CharField(max_length=12)
    amount = AmountField()
    sender = AddressField()
    address = AddressField(help_text="where the tokens arrived")
    tx_hash = HashField()
    ordinal = models.IntegerField(help_text="place of the log within its transaction")
    block_number = models.BigIntegerField()
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ("-created_at", "-id")
        constraints = [
            models.UniqueConstraint(fields=["network", "tx_hash", "ordinal"], name="deposit_once"),
            models.CheckConstraint(
                condition=models.Q(booked="user", user__isnull=False)
                | (~models.Q(booked="user") & models.Q(user__isnull=True)),
                name="deposit_user_has_user",
            ),
        ]
        indexes = [models.Index(fields=["user", "-created_at", "-id"], name="deposit_of_user")]

    def __str__(self) -> str:
        return f"deposit {self.id}"
