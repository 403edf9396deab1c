"""Auctions as the console shows them; tables and rules, bids too, are in `sql/auctions.sql`."""

from django.conf import settings
from django.db import models

from aitbc.core.fields import AmountField

STATES = ("open", "reveal", "award", "awarded", "void")


class Auction(models.Model):
    id = models.UUIDField(primary_key=True)
    client = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="+")
    award = models.CharField(max_length=6, choices=[("lowest", "Lowest bid"), ("manual", "By its client")])
    sealed = models.BooleanField()
    ceiling, seconds = AmountField(), models.IntegerField()
    state = models.CharField(max_length=7, choices=[(x, x.capitalize()) for x in STATES])
    closes_at, due_at = models.DateTimeField(), models.DateTimeField(null=True)

    class Meta:
        managed = False

    def __str__(self) -> str:
        return f"auction {self.id}"
