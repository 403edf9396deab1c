from pathlib import Path

from django.db import migrations

from aitbc.core.sql import restrict, run_file

SQL = Path(__file__).resolve().parents[1] / "sql"
TABLES = ("asset", "plan", "royalty", "bundle", "sale", "sale_share", "licence")


class Migration(migrations.Migration):
    dependencies = [("marketplace", "0060_reputation"), ("gpu", "0061_reexecution")]
    operations = [
        run_file(SQL / "assets.sql"),
        run_file(SQL / "licences.sql"),
        *(restrict(f"marketplace_{table}", "SELECT") for table in TABLES),
    ]
