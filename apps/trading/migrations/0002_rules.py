from pathlib import Path

from django.db import migrations

from aitbc.core.sql import restrict, run_file

SQL = Path(__file__).resolve().parents[1] / "sql"


class Migration(migrations.Migration):
    """The ledger's functions and triggers; the application's role reads money and never writes it."""

    dependencies = [("trading", "0001_initial"), ("accounts", "0002_parameters")]
    operations = [
        run_file(SQL / "ledger.sql"),
        run_file(SQL / "rules.sql"),
        run_file(SQL / "payments.sql"),
        restrict("trading_account", "SELECT"),
        restrict("trading_transfer", "SELECT"),
        restrict("trading_entry", "SELECT"),
        restrict("trading_payment", "SELECT"),
        restrict("trading_asset", "SELECT"),
    ]
