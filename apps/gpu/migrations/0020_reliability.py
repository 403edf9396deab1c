from pathlib import Path

import django.contrib.postgres.indexes
import django.db.models.deletion
import django.db.models.functions.datetime
from django.db import migrations, models

import aitbc.core.fields
from aitbc.core.sql import run_file


class Migration(migrations.Migration):
    dependencies = [("core", "0004_outages"), ("gpu", "0010_fair_queue")]

    operations = [
        migrations.CreateModel(
            name="HeartbeatRoot",
            fields=[
                ("day", models.DateField(primary_key=True, serialize=False)),
                ("root", aitbc.core.fields.HashField(editable=True, max_length=32)),
                ("miners", models.PositiveIntegerField()),
                ("sealed_at", models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
            ],
            options={"db_table": "gpu_heartbeat_root"},
        ),
        migrations.CreateModel(
            name="ReliabilityDay",
            fields=[
                (
                    "pk",
                    models.CompositePrimaryKey(
                        "miner_id", "day", blank=True, editable=False, primary_key=True, serialize=False
                    ),
                ),
                (
                    "miner",
                    models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name="days", to="gpu.miner"),
                ),
                ("day", models.DateField()),
                ("up_seconds", models.FloatField(default=0)),
                ("down_seconds", models.FloatField(default=0)),
                ("completed", models.PositiveIntegerField(default=0)),
                ("failed", models.PositiveIntegerField(default=0)),
                ("digest", aitbc.core.fields.HashField(editable=True, max_length=32, null=True)),
            ],
            options={"db_table": "gpu_reliability_day"},
        ),
        migrations.AddField(
            model_name="heartbeat",
            name="body",
            field=aitbc.core.fields.HashField(
                editable=True,
                help_text="Of telemetry and running jobs; with it the head can be computed again.",
                max_length=32,
                null=True,
            ),
        ),
        migrations.AddField(
            model_name="heartbeat",
            name="farewell",
            field=models.BooleanField(
                db_default=False, default=False, help_text="Then the miner signed off: its silence is no failure."
            ),
        ),
        migrations.AddField(
            model_name="heartbeat",
            name="signer",
            field=aitbc.core.fields.AddressField(
                editable=True, help_text="Whose signature it is.", max_length=20, null=True
            ),
        ),
        migrations.AddField(
            model_name="miner",
            name="reliability",
            field=models.FloatField(help_text="Score 0..1 by the signed log; null: not enough of it.", null=True),
        ),
        migrations.AddField(
            model_name="miner",
            name="reliability_at",
            field=models.DateTimeField(help_text="What came later is not in the score yet.", null=True),
        ),
        migrations.AddField(model_name="miner", name="reliability_high", field=models.FloatField(null=True)),
        migrations.AddField(model_name="miner", name="reliability_low", field=models.FloatField(null=True)),
        migrations.AddField(
            model_name="miner",
            name="reliability_samples",
            field=models.PositiveIntegerField(default=0, help_text="Hours observed and leases ended."),
        ),
        migrations.AddIndex(
            model_name="attempt",
            index=django.contrib.postgres.indexes.BrinIndex(
                autosummarize=True, fields=["ended_at"], name="attempt_ended"
            ),
        ),
        migrations.AddIndex(
            model_name="heartbeat", index=models.Index(fields=["miner", "received_at"], name="heartbeat_by_time")
        ),
        run_file(Path(__file__).resolve().parents[1] / "sql" / "reliability.sql"),
    ]
