from pathlib import Path

from django.db import migrations, models

from aitbc.core.sql import run_file

SQL = Path(__file__).resolve().parents[1] / "sql"


class Migration(migrations.Migration):
    dependencies = [("trading", "0014_audit")]
    operations = [
        migrations.RunSQL("ALTER TABLE trading_stream ADD COLUMN keeper uuid", migrations.RunSQL.noop),
        *(run_file(SQL / name) for name in ("ledger.sql", "liabilities.sql", "streams.sql")),
        migrations.AlterField(
            model_name="account",
            name="kind",
            field=models.CharField(
                choices=[
                    ("available", "Available"),
                    ("maturing", "Maturing: earned, in the dispute window"),
                    ("escrow", "Escrow: funds of a stream"),
                    ("bond", "Bond: behind what a provider promises"),
                    ("fees", "Platform fees"),
                    ("treasury", "Treasury"),
                    ("external", "External: mirror of the reserves on a chain"),
                    ("claimable", "Claimable on a chain"),
                    ("unattributed", "Unattributed tokens received on a chain"),
                ],
                max_length=12,
            ),
        ),
    ]
