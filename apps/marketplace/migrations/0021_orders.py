import django.contrib.postgres.fields
import django.db.models.deletion
from django.conf import settings
from django.db import migrations, models

import aitbc.core.fields


class Migration(migrations.Migration):
    dependencies = [
        ("gpu", "0009_occupancy"),
        ("marketplace", "0010_search"),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.AddField(
            model_name="offer",
            name="sla_bps",
            field=models.PositiveSmallIntegerField(help_text="Promised availability; null: no SLA.", null=True),
        ),
        migrations.AddField(
            model_name="offer",
            name="sla_only",
            field=models.BooleanField(
                db_default=False, default=False, help_text="Not sold while the bond does not cover it."
            ),
        ),
        migrations.CreateModel(
            name="BondWithdrawal",
            fields=[
                ("id", models.UUIDField(primary_key=True, serialize=False)),
                ("amount", aitbc.core.fields.AmountField(decimal_places=0, max_digits=38)),
                ("due_at", models.DateTimeField()),
                ("done_at", models.DateTimeField(null=True)),
                (
                    "owner",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT, related_name="+", to=settings.AUTH_USER_MODEL
                    ),
                ),
            ],
            options={
                "db_table": "marketplace_bond_withdrawal",
                "ordering": ("-id",),
                "indexes": [
                    models.Index(
                        condition=models.Q(("done_at__isnull", True)), fields=["due_at"], name="bond_withdrawal_due"
                    )
                ],
            },
        ),
        migrations.CreateModel(
            name="Order",
            fields=[
                ("id", models.UUIDField(primary_key=True, serialize=False)),
                ("devices", django.contrib.postgres.fields.ArrayField(base_field=models.UUIDField(), size=None)),
                ("rate", aitbc.core.fields.AmountField(decimal_places=0, max_digits=38)),
                ("seconds", models.PositiveIntegerField()),
                ("total", aitbc.core.fields.AmountField(decimal_places=0, max_digits=38)),
                ("fee_bps", models.PositiveSmallIntegerField()),
                (
                    "bid",
                    aitbc.core.fields.AmountField(
                        decimal_places=0, help_text="Spot: units per device second.", max_digits=38, null=True
                    ),
                ),
                ("wants", models.JSONField(help_text="What any offer must have that takes its place.")),
                ("failover", models.BooleanField(help_text="Move to the next best offer by itself.")),
                ("starts_at", models.DateTimeField()),
                ("created_at", models.DateTimeField()),
                (
                    "kind",
                    models.CharField(
                        choices=[
                            ("on_demand", "On demand"),
                            ("spot", "Spot: a higher bid or an on-demand order ends it, after notice"),
                            ("reserved", "Reserved: prepaid, at a discount"),
                            ("auction", "Won in an auction"),
                        ],
                        max_length=9,
                    ),
                ),
                (
                    "state",
                    models.CharField(
                        choices=[
                            ("accepted", "Accepted: escrowed, not started"),
                            ("active", "Active: paid by the second"),
                            ("notice", "Notice: ends soon, outbid"),
                            ("completed", "Completed"),
                            ("canceled", "Canceled: see who"),
                            ("missed", "Missed: not started in time"),
                            ("failed", "Failed: its miner left"),
                            ("evicted", "Evicted: outbid"),
                        ],
                        max_length=9,
                    ),
                ),
                ("start_deadline", models.DateTimeField()),
                ("started_at", models.DateTimeField(null=True)),
                ("ends_at", models.DateTimeField()),
                ("ended_at", models.DateTimeField(null=True)),
                ("ended_by", models.CharField(blank=True, help_text="client, provider or platform.", max_length=8)),
                ("reason", models.CharField(blank=True, max_length=300)),
                ("hold", models.UUIDField(help_text="The escrow until it starts.", null=True)),
                ("stream", models.UUIDField(help_text="Pays it from then on.", null=True)),
                (
                    "paid",
                    aitbc.core.fields.AmountField(
                        decimal_places=0, default=0, help_text="To the provider, fee off; at the end.", max_digits=38
                    ),
                ),
                ("fee", aitbc.core.fields.AmountField(decimal_places=0, default=0, max_digits=38)),
                ("refunded", aitbc.core.fields.AmountField(decimal_places=0, default=0, max_digits=38)),
                (
                    "sla_bps",
                    models.PositiveSmallIntegerField(help_text="Promised availability; null: no SLA.", null=True),
                ),
                ("bond_hold", models.UUIDField(null=True)),
                (
                    "max_credit",
                    aitbc.core.fields.AmountField(
                        decimal_places=0, default=0, help_text="What `bond_hold` reserved.", max_digits=38
                    ),
                ),
                (
                    "credit",
                    aitbc.core.fields.AmountField(
                        decimal_places=0,
                        help_text="Paid out of the bond; null until it is settled.",
                        max_digits=38,
                        null=True,
                    ),
                ),
                ("evicted_by", models.UUIDField(null=True)),
                (
                    "compensation",
                    aitbc.core.fields.AmountField(
                        decimal_places=0,
                        help_text="To one that was evicted; null until it is settled.",
                        max_digits=38,
                        null=True,
                    ),
                ),
                ("moved_from", models.UUIDField(null=True)),
                ("moved_to", models.UUIDField(null=True)),
                ("move_at", models.DateTimeField(help_text="When to look for another offer again.", null=True)),
                ("due_at", models.DateTimeField(help_text="When the timer must look at it.", null=True)),
                (
                    "client",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="%(class)ss",
                        to=settings.AUTH_USER_MODEL,
                    ),
                ),
                (
                    "miner",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT, related_name="orders", to="gpu.miner"
                    ),
                ),
                (
                    "offer",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT, related_name="%(class)ss", to="marketplace.offer"
                    ),
                ),
                (
                    "provider",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="orders_served",
                        to=settings.AUTH_USER_MODEL,
                    ),
                ),
            ],
            options={
                "ordering": ("-id",),
                "indexes": [
                    models.Index(condition=models.Q(("due_at__isnull", False)), fields=["due_at"], name="order_due"),
                    models.Index(fields=["client", "-id"], name="order_of_client"),
                    models.Index(fields=["provider", "-id"], name="order_of_provider"),
                    models.Index(fields=["miner", "state"], name="order_of_miner"),
                    models.Index(
                        condition=models.Q(("evicted_by__isnull", False)), fields=["evicted_by"], name="order_evictor"
                    ),
                ],
            },
        ),
        migrations.CreateModel(
            name="Quote",
            fields=[
                ("id", models.UUIDField(primary_key=True, serialize=False)),
                (
                    "kind",
                    models.CharField(
                        choices=[
                            ("on_demand", "On demand"),
                            ("spot", "Spot: a higher bid or an on-demand order ends it, after notice"),
                            ("reserved", "Reserved: prepaid, at a discount"),
                            ("auction", "Won in an auction"),
                        ],
                        max_length=9,
                    ),
                ),
                ("devices", django.contrib.postgres.fields.ArrayField(base_field=models.UUIDField(), size=None)),
                ("rate", aitbc.core.fields.AmountField(decimal_places=0, max_digits=38)),
                ("seconds", models.PositiveIntegerField()),
                ("total", aitbc.core.fields.AmountField(decimal_places=0, max_digits=38)),
                ("fee_bps", models.PositiveSmallIntegerField()),
                (
                    "bid",
                    aitbc.core.fields.AmountField(
                        decimal_places=0, help_text="Spot: units per device second.", max_digits=38, null=True
                    ),
                ),
                ("wants", models.JSONField(help_text="What any offer must have that takes its place.")),
                ("failover", models.BooleanField(help_text="Move to the next best offer by itself.")),
                ("starts_at", models.DateTimeField()),
                ("created_at", models.DateTimeField()),
                (
                    "state",
                    models.CharField(
                        choices=[
                            ("open", "Open"),
                            ("accepted", "Accepted: see the order of the same id"),
                            ("expired", "Expired: its deposit returned"),
                            ("forfeited", "Expired: its deposit went to the provider"),
                        ],
                        max_length=9,
                    ),
                ),
                ("firm", models.BooleanField()),
                (
                    "deposit",
                    aitbc.core.fields.AmountField(
                        decimal_places=0, help_text="Held under the quote's id.", max_digits=38
                    ),
                ),
                ("expires_at", models.DateTimeField()),
                ("resolved_at", models.DateTimeField(null=True)),
                (
                    "client",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="%(class)ss",
                        to=settings.AUTH_USER_MODEL,
                    ),
                ),
                (
                    "offer",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT, related_name="%(class)ss", to="marketplace.offer"
                    ),
                ),
            ],
            options={
                "ordering": ("-id",),
                "indexes": [
                    models.Index(condition=models.Q(("state", "open")), fields=["expires_at"], name="quote_due"),
                    models.Index(fields=["client", "resolved_at"], name="quote_of_client"),
                ],
            },
        ),
    ]
