from pathlib import Path

from django.db import migrations

from aitbc.core.sql import run_file

SQL = Path(__file__).resolve().parents[1] / "sql"


class Migration(migrations.Migration):
    dependencies = [("core", "0001_initial")]
    operations = [run_file(SQL / "idempotency.sql")]
