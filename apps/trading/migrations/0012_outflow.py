from pathlib import Path

from django.db import migrations

from aitbc.core.sql import run_file


class Migration(migrations.Migration):
    """Withdrawals and payouts change their state where their money moves."""

    dependencies = [("trading", "0011_liabilities")]
    operations = [run_file(Path(__file__).resolve().parents[1] / "sql" / "outflow.sql")]
