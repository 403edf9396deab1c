"""Prepaid streams of money, as the console shows them; table and constraints are in `sql/escrow.sql`."""

from django.conf import settings
from django.db import models

from aitbc.core.fields import AmountField


class Stream(models.Model):
    """Its escrow account holds deposited - paid - fees - returned; `rate` is that of all payees a second."""

    id = models.UUIDField(primary_key=True)
    owner = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="streams")
    asset = models.CharField(max_length=12)
    state = models.CharField(max_length=6, choices={"open": "Open", "closed": "Closed", "ended": "Ended"})
    rate, deposited = AmountField(), AmountField()
    ends_at = models.DateTimeField(null=True)
    created_at = models.DateTimeField()

    class Meta:
        managed = False

    def __str__(self) -> str:
        return f"stream {self.id}"
