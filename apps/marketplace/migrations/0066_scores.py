from pathlib import Path

from django.db import migrations

from aitbc.core.sql import run_file

SQL = Path(__file__).resolve().parents[1] / "sql"


class Migration(migrations.Migration):
    """What the parts of the market know of each other."""

    dependencies = [("marketplace", "0061_licences"), ("gpu", "0061_reexecution")]
    operations = [run_file(SQL / "reliability.sql")]
