from pathlib import Path

from django.db import migrations

from aitbc.core.sql import run_file


class Migration(migrations.Migration):
    """The sweeps of jobs and miners, and what miners read about themselves, as functions."""

    dependencies = [("gpu", "0032_advice")]
    operations = [run_file(Path(__file__).resolve().parents[1] / "sql" / name) for name in ("sweeps.sql", "miners.sql")]
