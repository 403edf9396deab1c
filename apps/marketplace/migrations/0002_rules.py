from pathlib import Path

from django.db import migrations

from aitbc.core.sql import run_file

SQL = Path(__file__).resolve().parents[1] / "sql"


class Migration(migrations.Migration):
    dependencies = [("marketplace", "0001_initial"), ("gpu", "0002_functions")]
    operations = [run_file(SQL / "rules.sql"), run_file(SQL / "views.sql")]
