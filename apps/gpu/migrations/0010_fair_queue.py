from pathlib import Path

import django.utils.timezone
from django.db import migrations, models

import aitbc.core.fields
from aitbc.core.sql import run_file

SQL = Path(__file__).resolve().parents[1] / "sql"


class Migration(migrations.Migration):
    """Start-time-fair ranks (docs/adr/0012), queue quotas, jobs that an order of the market pays."""

    dependencies = [("gpu", "0009_occupancy")]
    operations = [
        migrations.RemoveConstraint(model_name="job", name="job_max_price_positive"),
        migrations.RemoveIndex(model_name="queuedjob", name="queue_order"),
        migrations.AddField(
            model_name="job",
            name="order_id",
            field=models.UUIDField(
                help_text="Of the market; it pays, so that the job holds and costs nothing.", null=True
            ),
        ),
        migrations.AddField(
            model_name="job",
            name="rank",
            field=models.BigIntegerField(help_text="Its place in the queue, kept for when a lease is lost.", null=True),
        ),
        migrations.AddField(
            model_name="job",
            name="surcharge_bps",
            field=models.IntegerField(default=0, help_text="What its priority adds to the unit price."),
        ),
        migrations.AddField(
            model_name="jobclass",
            name="budget",
            field=aitbc.core.fields.AmountField(
                decimal_places=0,
                default=0,
                help_text="No job of the class can pay more for a device second; 0: priced otherwise.",
                max_digits=38,
            ),
        ),
        migrations.AddField(
            model_name="jobclass",
            name="holder",
            field=models.UUIDField(help_text="The order that pays, on devices that it occupies.", null=True),
        ),
        migrations.AddField(model_name="jobclass", name="min_reliability", field=models.FloatField(null=True)),
        migrations.AddField(
            model_name="jobclass",
            name="vtime",
            field=models.BigIntegerField(
                default=0, help_text="Rank last claimed: microseconds of virtual device time."
            ),
        ),
        migrations.AddField(model_name="jobclass", name="vtime_at", field=models.DateTimeField(null=True)),
        migrations.AddField(
            model_name="miner",
            name="vtime",
            field=models.BigIntegerField(db_default=0, default=0, help_text="Highest rank that it claimed."),
        ),
        migrations.AddField(
            model_name="queuedjob",
            name="client_id",
            field=models.UUIDField(default="00000000-0000-0000-0000-000000000000"),
            preserve_default=False,
        ),
        migrations.AddField(
            model_name="queuedjob", name="priority", field=models.SmallIntegerField(default=0), preserve_default=False
        ),
        migrations.AddField(
            model_name="queuedjob",
            name="since",
            field=models.DateTimeField(
                default=django.utils.timezone.now, help_text="Submission; the older one of equal ranks is first."
            ),
            preserve_default=False,
        ),
        migrations.AlterField(
            model_name="jobclass",
            name="miner",
            field=models.UUIDField(
                help_text="Only this miner: the job names one of its offers, or an order on it.", null=True
            ),
        ),
        migrations.AlterField(
            model_name="queuedjob",
            name="max_price",
            field=aitbc.core.fields.AmountField(
                decimal_places=0,
                help_text="What it can pay for a device second, before its priority's surcharge.",
                max_digits=38,
            ),
        ),
        migrations.AlterField(
            model_name="queuedjob",
            name="rank",
            field=models.BigIntegerField(help_text="Smaller is sooner: start-time-fair, see docs/adr/0012."),
        ),
        migrations.RunSQL(
            """UPDATE gpu_job_class SET budget = power(10::numeric, 37) WHERE miner IS NULL;
               UPDATE gpu_job_queue q SET client_id = j.client_id, priority = j.priority, since = j.created_at, rank = j.nth
                 FROM (SELECT j.*, row_number() OVER (ORDER BY q.rank) AS nth
                         FROM gpu_job_queue q JOIN gpu_job j ON j.id = q.job_id) j WHERE j.id = q.job_id""",
            migrations.RunSQL.noop,
        ),
        migrations.RunSQL(
            """ALTER TABLE gpu_job_class SET (fillfactor = 50);
               ALTER TABLE gpu_miner SET (fillfactor = 70);
               ALTER TABLE gpu_job_queue SET (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 20000)""",
            migrations.RunSQL.noop,
        ),
        migrations.AddIndex(
            model_name="job",
            index=models.Index(
                condition=models.Q(("order_id__isnull", False), ("state__in", ("queued", "leased", "running"))),
                fields=["order_id"],
                name="job_of_order",
            ),
        ),
        migrations.AddIndex(
            model_name="queuedjob", index=models.Index(fields=["job_class", "rank", "since"], name="queue_order")
        ),
        migrations.AddIndex(
            model_name="queuedjob",
            index=models.Index(fields=["client_id", "priority", "job_class", "rank"], name="queue_of_client"),
        ),
        migrations.AddConstraint(
            model_name="job",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    models.Q(("max_price__gt", 0), ("order_id__isnull", True)),
                    models.Q(("max_price", 0), ("order_id__isnull", False)),
                    _connector="OR",
                ),
                name="job_pays_or_its_order",
            ),
        ),
        migrations.RunSQL(
            """DROP TYPE IF EXISTS gpu_submission, gpu_completion;
               DROP FUNCTION IF EXISTS gpu_classes_of, gpu_class_id""",
            migrations.RunSQL.noop,
        ),
        run_file(SQL / "queue.sql"),
        run_file(SQL / "views.sql"),
        run_file(SQL / "jobs.sql"),
    ]
