from pathlib import Path

from django.db import migrations

from aitbc.core.sql import run_file


class Migration(migrations.Migration):
    dependencies = [("trading", "0008_payments_and_streams"), ("webhooks", "0001_initial")]
    operations = [run_file(Path(__file__).resolve().parents[1] / "sql" / "told.sql")]
