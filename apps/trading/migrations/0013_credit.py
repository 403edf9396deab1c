from pathlib import Path

from django.db import migrations

from aitbc.core.sql import run_file


class Migration(migrations.Migration):
    """The asset of installations without a chain."""

    dependencies = [("trading", "0012_outflow")]
    operations = [run_file(Path(__file__).resolve().parents[1] / "sql" / "credit.sql")]
