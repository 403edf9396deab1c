from pathlib import Path

import django.contrib.postgres.fields.ranges
import django.db.models.deletion
from django.db import migrations, models

from aitbc.core.sql import run_file


class Migration(migrations.Migration):
    dependencies = [("gpu", "0008_told")]
    operations = [
        migrations.CreateModel(
            name="Occupancy",
            fields=[
                ("id", models.BigAutoField(primary_key=True, serialize=False)),
                ("holder", models.UUIDField(db_index=True)),
                ("client_id", models.UUIDField()),
                ("during", django.contrib.postgres.fields.ranges.DateTimeRangeField()),
                (
                    "device",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT, related_name="occupancies", to="gpu.device"
                    ),
                ),
            ],
        ),
        run_file(Path(__file__).resolve().parents[1] / "sql" / "occupancy.sql"),
    ]
