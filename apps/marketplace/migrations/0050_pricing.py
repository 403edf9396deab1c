from pathlib import Path

import django.db.models.deletion
from django.db import migrations, models

import aitbc.core.fields
from aitbc.core.sql import restrict, run_file

SQL = Path(__file__).resolve().parents[1] / "sql"
FILES = ("prices.sql", "strategies.sql", "regions.sql", "listing_rules.sql", "sla.sql")


class Migration(migrations.Migration):
    dependencies = [("marketplace", "0022_order_rules"), ("gpu", "0009_occupancy"), ("trading", "0014_audit")]

    operations = [
        *(run_file(SQL / name) for name in FILES),
        restrict("marketplace_price_change", "SELECT, INSERT"),
        migrations.CreateModel(
            name="Price",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("span", models.CharField(max_length=4)),
                ("source", models.CharField(max_length=6)),
                ("hour", models.DateTimeField()),
                ("count", models.BigIntegerField()),
                ("model", models.CharField(max_length=100)),
                ("region", models.CharField(max_length=40)),
                ("p10", aitbc.core.fields.AmountField(decimal_places=0, max_digits=38)),
                ("p50", aitbc.core.fields.AmountField(decimal_places=0, max_digits=38)),
                ("p90", aitbc.core.fields.AmountField(decimal_places=0, max_digits=38)),
            ],
            options={"abstract": False, "managed": False},
        ),
        migrations.CreateModel(
            name="Region",
            fields=[
                ("code", models.CharField(max_length=40, primary_key=True, serialize=False)),
                ("name", models.CharField(max_length=100)),
                ("probe_url", models.CharField(blank=True, max_length=200)),
                ("latitude", models.DecimalField(blank=True, decimal_places=5, max_digits=8, null=True)),
                ("longitude", models.DecimalField(blank=True, decimal_places=5, max_digits=8, null=True)),
                (
                    "status",
                    models.CharField(
                        choices=[("active", "active"), ("maintenance", "maintenance"), ("closed", "closed")],
                        max_length=11,
                    ),
                ),
                ("fee_bps", models.IntegerField(default=0)),
                ("price_bps", models.IntegerField(default=10000)),
                ("miners", models.IntegerField(default=0)),
                ("online", models.IntegerField(default=0)),
                ("health", models.FloatField(null=True)),
                ("load", models.FloatField(null=True)),
            ],
            options={"abstract": False, "managed": False},
        ),
        migrations.CreateModel(
            name="Rule",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("name", models.CharField(max_length=60, unique=True)),
                (
                    "category",
                    models.CharField(
                        choices=[("pricing", "pricing"), ("quality", "quality"), ("compliance", "compliance")],
                        max_length=10,
                    ),
                ),
                (
                    "effect",
                    models.CharField(
                        choices=[("warning", "warning"), ("restriction", "restriction"), ("ban", "ban")], max_length=11
                    ),
                ),
                ("field", models.CharField(max_length=20)),
                ("operator", models.CharField(max_length=12)),
                ("value", models.JSONField()),
                ("message", models.CharField(max_length=200)),
                ("active", models.BooleanField(default=True)),
                ("created_by_id", models.UUIDField(editable=False, null=True)),
            ],
            options={"abstract": False, "managed": False},
        ),
        migrations.CreateModel(
            name="Strategy",
            fields=[
                (
                    "offer",
                    models.OneToOneField(
                        on_delete=django.db.models.deletion.PROTECT,
                        primary_key=True,
                        serialize=False,
                        to="marketplace.offer",
                    ),
                ),
                ("preset", models.CharField(db_column="preset_id", max_length=24)),
                ("base", aitbc.core.fields.AmountField(decimal_places=0, max_digits=38)),
                ("floor", aitbc.core.fields.AmountField(decimal_places=0, max_digits=38)),
                ("ceiling", aitbc.core.fields.AmountField(decimal_places=0, max_digits=38)),
                ("frozen_until", models.DateTimeField(null=True)),
                ("due_at", models.DateTimeField()),
            ],
            options={"abstract": False, "managed": False, "verbose_name_plural": "strategies"},
        ),
    ]
