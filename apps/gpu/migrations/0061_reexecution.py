from pathlib import Path

from django.db import migrations

from aitbc.core.sql import restrict, run_file

SQL = Path(__file__).resolve().parents[1] / "sql"
TABLES = ("gpu_rerun", "gpu_reexecution", "gpu_dispute_evidence")


class Migration(migrations.Migration):
    """Disputes are decided, and models checked, by doing the work again elsewhere."""

    dependencies = [("gpu", "0060_level_benefits"), ("trading", "0014_audit")]
    operations = [
        run_file(SQL / "reruns.sql"),
        run_file(SQL / "reexecution.sql"),
        *(restrict(table, "SELECT") for table in TABLES),
    ]
