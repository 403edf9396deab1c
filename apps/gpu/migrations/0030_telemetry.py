from pathlib import Path

from django.db import migrations

from aitbc.core.sql import run_file


class Migration(migrations.Migration):
    """Samples of devices in monthly partitions; the first are made here, the next by `gpu.keep`."""

    dependencies = [("gpu", "0022_memory_proof"), ("trading", "0012_outflow")]
    operations = [run_file(Path(__file__).resolve().parents[1] / "sql" / "telemetry.sql")]
