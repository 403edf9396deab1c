from pathlib import Path

from django.db import migrations, models

from aitbc.core.sql import run_file


class Migration(migrations.Migration):
    dependencies = [("gpu", "0021_catalogue")]

    operations = [
        migrations.RemoveConstraint(model_name="challenge", name="challenge_one_open_per_device"),
        migrations.AddField(
            model_name="challenge",
            name="draw",
            field=models.CharField(blank=True, help_text="Of memory: drawn after that; picks the rows.", max_length=66),
        ),
        migrations.AddField(
            model_name="challenge",
            name="proof",
            field=models.CharField(
                choices=[("compute", "compute"), ("memory", "memory")], default="compute", max_length=7
            ),
        ),
        migrations.AddField(
            model_name="challenge",
            name="shown",
            field=models.BooleanField(default=False, help_text="The miner has heard of it; its clock began then."),
        ),
        migrations.AddField(
            model_name="challenge",
            name="walked_at",
            field=models.DateTimeField(help_text="Of memory: when the roots of all readings had come.", null=True),
        ),
        migrations.AlterField(
            model_name="challenge",
            name="state",
            field=models.CharField(
                choices=[
                    ("issued", "Issued"),
                    ("committed", "Committed"),
                    ("walked", "Memory read"),
                    ("passed", "Passed"),
                    ("failed", "Failed"),
                ],
                default="issued",
                max_length=9,
            ),
        ),
        migrations.AddConstraint(
            model_name="challenge",
            constraint=models.UniqueConstraint(
                condition=models.Q(("state__in", ("issued", "committed", "walked"))),
                fields=("device",),
                name="challenge_one_open_per_device",
            ),
        ),
        run_file(Path(__file__).resolve().parents[1] / "sql" / "challenges.sql"),
    ]
