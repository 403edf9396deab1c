from pathlib import Path

from django.db import migrations

from aitbc.core.sql import run_file

SQL = Path(__file__).resolve().parents[1] / "sql"


class Migration(migrations.Migration):
    """Results carry the units that the platform counted."""

    dependencies = [("gpu", "0033_sweeps")]
    operations = [run_file(SQL / "counted.sql")]  # `jobs.sql`, which uses it, is run by 0060
