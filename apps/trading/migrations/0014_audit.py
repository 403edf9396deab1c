from pathlib import Path

from django.db import migrations

from aitbc.core.sql import run_file

SQL = Path(__file__).resolve().parents[1] / "sql"


class Migration(migrations.Migration):
    """The ledger's journal covers the audit log, which has what people decide about money."""

    dependencies = [("trading", "0013_credit"), ("accounts", "0003_audit")]
    operations = [run_file(SQL / "journal.sql"), run_file(SQL / "audit.sql")]
