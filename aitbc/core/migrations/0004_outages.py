from pathlib import Path

from django.db import migrations, models

from aitbc.core.sql import run_file


class Migration(migrations.Migration):
    dependencies = [("core", "0003_database_times")]

    operations = [
        migrations.CreateModel(
            name="PlatformOutage",
            fields=[
                ("id", models.BigAutoField(primary_key=True, serialize=False)),
                ("process", models.CharField(max_length=40)),
                ("began_at", models.DateTimeField()),
                ("ended_at", models.DateTimeField(db_index=True)),
            ],
            options={"db_table": "core_platform_outage"},
        ),
        run_file(Path(__file__).resolve().parents[1] / "sql" / "outages.sql"),
    ]
