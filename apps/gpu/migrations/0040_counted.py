from pathlib import Path

from django.db import migrations

from aitbc.core.sql import run_file

SQL = Path(__file__).resolve().parents[1] / "sql"


class Migration(migrations.Migration):
    """Results carry the units that the platform counted."""

    dependencies = [("gpu", "0033_sweeps")]
    operations = [
        run_file(SQL / "counted.sql"),
        migrations.RunSQL("DROP TYPE IF EXISTS gpu_submission, gpu_completion", migrations.RunSQL.noop),
        run_file(SQL / "jobs.sql"),
    ]
