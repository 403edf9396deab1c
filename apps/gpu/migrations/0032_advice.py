from pathlib import Path

from django.db import migrations

from aitbc.core.sql import run_file


class Migration(migrations.Migration):
    """What fits a device, how many slots are needed, and whether the GPUs are well."""

    dependencies = [("gpu", "0031_quotas")]
    operations = [run_file(Path(__file__).resolve().parents[1] / "sql" / "advice.sql")]
