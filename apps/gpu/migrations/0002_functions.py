from pathlib import Path

from django.db import migrations

from aitbc.core.sql import run_file

SQL = Path(__file__).resolve().parents[1] / "sql"


class Migration(migrations.Migration):
    dependencies = [("gpu", "0001_initial"), ("trading", "0002_rules"), ("core", "0002_functions")]
    operations = [
        run_file(SQL / "views.sql"),
        run_file(SQL / "jobs.sql"),
        # Rewritten at each claim and finish: room on the page keeps updates cheap.
        migrations.RunSQL("ALTER TABLE gpu_job SET (fillfactor = 70)", migrations.RunSQL.noop),
    ]
