"""Prices, strategies, regions and rules, as the console shows them; tables and constraints are in `sql/`."""

from django.core.exceptions import ValidationError
from django.db import models
from orjson import dumps

from aitbc.core import db
from aitbc.core.fields import AmountField


class _Kept(models.Model):
    class Meta:
        abstract = True
        managed = False

    def __str__(self) -> str:
        return f"{self._meta.verbose_name} {self.pk}"


class Strategy(_Kept):
    """How the price of an offer is made; `floor` and `ceiling` are its bounds."""

    offer = models.OneToOneField("marketplace.Offer", on_delete=models.PROTECT, primary_key=True)
    preset = models.CharField(max_length=24, db_column="preset_id")
    base, floor, ceiling = AmountField(), AmountField(), AmountField()
    frozen_until, due_at = models.DateTimeField(null=True), models.DateTimeField()

    class Meta(_Kept.Meta):
        verbose_name_plural = "strategies"


class Price(_Kept):
    """Percentiles of an hour (span `hour`) or of the 24 hours that end with it; empty model or region: all."""

    span, source = models.CharField(max_length=4), models.CharField(max_length=6)
    hour, count = models.DateTimeField(), models.BigIntegerField()
    model, region = models.CharField(max_length=100), models.CharField(max_length=40)
    p10, p50, p90 = AmountField(), AmountField(), AmountField()


class Region(_Kept):
    """Health and load are computed; NULL is unknown, and below 0.5 of health nothing is matched there."""

    code = models.CharField(max_length=40, primary_key=True)
    name, probe_url = models.CharField(max_length=100), models.CharField(max_length=200, blank=True)
    latitude = models.DecimalField(max_digits=8, decimal_places=5, null=True, blank=True)
    longitude = models.DecimalField(max_digits=8, decimal_places=5, null=True, blank=True)
    status = models.CharField(max_length=11, choices=[(x, x) for x in ("active", "maintenance", "closed")])
    fee_bps, price_bps = models.IntegerField(default=0), models.IntegerField(default=10_000)
    miners, online = models.IntegerField(default=0), models.IntegerField(default=0)
    health, load = models.FloatField(null=True), models.FloatField(null=True)


class Rule(_Kept):
    """Who lists what `field operator value` describes is warned, refused, or also taken off the market."""

    name, message = models.CharField(max_length=60, unique=True), models.CharField(max_length=200)
    category = models.CharField(max_length=10, choices=[(x, x) for x in ("pricing", "quality", "compliance")])
    effect = models.CharField(max_length=11, choices=[(x, x) for x in ("warning", "restriction", "ban")])
    field, operator = models.CharField(max_length=20), models.CharField(max_length=12)
    value, active = models.JSONField(), models.BooleanField(default=True)

    def clean(self) -> None:
        condition = (self.field, self.operator, dumps(self.value).decode())
        if not db.value("SELECT market_rule_valid(%s, %s, %s)", condition):
            raise ValidationError("No such field or operator, or no value for them: see docs/pricing.md.")
