from pathlib import Path

from django.db import migrations

from aitbc.core.sql import run_file

SQL = Path(__file__).resolve().parents[1] / "sql"
OCCUPANCY = Path(__file__).resolve().parents[2] / "gpu" / "sql" / "occupancy.sql"


class Migration(migrations.Migration):
    dependencies = [
        ("marketplace", "0021_orders"),
        ("trading", "0020_kept_streams_and_bonds"),
        ("gpu", "0009_occupancy"),
        ("core", "0003_database_times"),
    ]
    operations = [
        run_file(OCCUPANCY),
        *(run_file(SQL / f"{name}.sql") for name in ("views", "order_rules", "quotes", "orders", "bonds")),
    ]
