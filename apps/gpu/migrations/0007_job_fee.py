from pathlib import Path

from django.db import migrations, models

from aitbc.core.sql import run_file


class Migration(migrations.Migration):
    """The fee is agreed at the lease; a payment whose job expires is called so."""

    dependencies = [("gpu", "0006_database_times"), ("trading", "0008_payments_and_streams")]
    operations = [
        migrations.AddField(
            model_name="job",
            name="fee_bps",
            field=models.SmallIntegerField(help_text="The platform's share, agreed at the lease.", null=True),
        ),
        migrations.RunSQL("DROP TYPE IF EXISTS gpu_submission, gpu_completion", migrations.RunSQL.noop),
        run_file(Path(__file__).resolve().parents[1] / "sql" / "jobs.sql"),
    ]
