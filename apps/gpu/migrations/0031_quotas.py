from pathlib import Path

from django.db import migrations

from aitbc.core.sql import run_file


class Migration(migrations.Migration):
    """Resumable uploads and the quotas of an owner; logs kept so far are counted once."""

    dependencies = [("gpu", "0030_telemetry")]
    operations = [
        run_file(Path(__file__).resolve().parents[1] / "sql" / "quotas.sql"),
        migrations.RunSQL(
            """INSERT INTO gpu_log_usage SELECT j.client_id, sum(octet_length(array_to_string(l.lines, ' ')) + 1)
                 FROM gpu_job_log l JOIN gpu_job j ON j.id = l.job_id GROUP BY 1 ON CONFLICT DO NOTHING""",
            migrations.RunSQL.noop,
        ),
    ]
