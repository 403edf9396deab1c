from pathlib import Path

from django.db import migrations

from aitbc.core.sql import run_file


class Migration(migrations.Migration):
    """A lease fixes the fee of its provider's level, which also limits the jobs that a miner holds."""

    dependencies = [("gpu", "0041_typed")]
    operations = [
        migrations.RunSQL("DROP TYPE IF EXISTS gpu_submission, gpu_completion", migrations.RunSQL.noop),
        run_file(Path(__file__).resolve().parents[1] / "sql" / "jobs.sql"),
    ]
