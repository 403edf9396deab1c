from pathlib import Path

from django.db import migrations

from aitbc.core.sql import run_file


class Migration(migrations.Migration):
    """The ledger's journal covers the audit log, and canceled withdrawals are in it."""

    dependencies = [("trading", "0005_journal"), ("accounts", "0003_audit")]
    operations = [run_file(Path(__file__).resolve().parents[1] / "sql" / "audit.sql")]
