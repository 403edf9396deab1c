from pathlib import Path

from django.db import migrations

from aitbc.core.sql import run_file


class Migration(migrations.Migration):
    dependencies = [("gpu", "0040_counted")]
    operations = [run_file(Path(__file__).resolve().parents[1] / "sql" / "typed.sql")]
