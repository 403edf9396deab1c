from pathlib import Path

from django.db import migrations

from aitbc.core.sql import run_file


class Migration(migrations.Migration):
    dependencies = [("gpu", "0005_job_log"), ("webhooks", "0001_initial")]
    operations = [run_file(Path(__file__).resolve().parents[1] / "sql" / "told.sql")]
