from pathlib import Path

from django.db import migrations, models

import aitbc.core.fields
from aitbc.core.sql import restrict, run_file

SQL = Path(__file__).resolve().parents[1] / "sql"


class Migration(migrations.Migration):
    dependencies = [("marketplace", "0061_licences"), ("trading", "0020_kept_streams_and_bonds")]
    operations = [
        migrations.CreateModel(
            name="Auction",
            fields=[
                ("id", models.UUIDField(primary_key=True, serialize=False)),
                (
                    "award",
                    models.CharField(choices=[("lowest", "Lowest bid"), ("manual", "By its client")], max_length=6),
                ),
                ("sealed", models.BooleanField()),
                ("ceiling", aitbc.core.fields.AmountField(decimal_places=0, max_digits=38)),
                ("seconds", models.IntegerField()),
                (
                    "state",
                    models.CharField(
                        choices=[(x, x.capitalize()) for x in ("open", "reveal", "award", "awarded", "void")],
                        max_length=7,
                    ),
                ),
                ("closes_at", models.DateTimeField()),
                ("due_at", models.DateTimeField(null=True)),
            ],
            options={"managed": False},
        ),
        run_file(SQL / "auctions.sql"),
        restrict("marketplace_auction", "SELECT, INSERT, UPDATE"),
        restrict("marketplace_bid", "SELECT, INSERT, UPDATE"),
    ]
