from pathlib import Path

from django.db import migrations

from aitbc.core.sql import run_file


class Migration(migrations.Migration):
    """The sweeps of jobs and miners as functions."""

    dependencies = [("gpu", "0032_advice")]
    operations = [run_file(Path(__file__).resolve().parents[1] / "sql" / "sweeps.sql")]
