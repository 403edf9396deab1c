from pathlib import Path

from django.db import migrations

from aitbc.core.sql import run_file


class Migration(migrations.Migration):
    dependencies = [("gpu", "0007_job_fee"), ("webhooks", "0001_initial")]
    operations = [run_file(Path(__file__).resolve().parents[1] / "sql" / "told.sql")]
