from pathlib import Path

from django.db import migrations, models

from aitbc.core.sql import run_file


class Migration(migrations.Migration):
    dependencies = [("gpu", "0020_reliability")]

    operations = [
        migrations.AddField(
            model_name="device",
            name="dl_score",
            field=models.FloatField(help_text="100 is an RTX 3090 (docs/hardware.md).", null=True),
        ),
        migrations.AddField(
            model_name="device",
            name="doubt",
            field=models.CharField(
                blank=True, help_text="Why it is not what it claims to be; empty: it may.", max_length=300
            ),
        ),
        migrations.AddField(
            model_name="device",
            name="refuted",
            field=models.CharField(blank=True, help_text="Why its last challenge failed, if it did.", max_length=200),
        ),
        migrations.AddField(
            model_name="device",
            name="verified_model",
            field=models.CharField(help_text="The known card that it behaves like.", max_length=100, null=True),
        ),
        run_file(Path(__file__).resolve().parents[1] / "sql" / "catalogue.sql"),
    ]
