from pathlib import Path

import django.db.models.deletion
from django.db import migrations, models
from django.db.models import Q

import aitbc.core.fields
from aitbc.core.sql import restrict, run_file

SQL = Path(__file__).resolve().parents[1] / "sql"


class Migration(migrations.Migration):
    """Holds with a time-out, and balances at sealed blocks."""

    dependencies = [("trading", "0005_journal")]
    operations = [
        migrations.CreateModel(
            name="HoldTimer",
            fields=[
                ("hold", models.UUIDField(primary_key=True, serialize=False)),
                ("due", models.DateTimeField(db_index=True)),
            ],
        ),
        migrations.CreateModel(
            name="Checkpoint",
            fields=[
                (
                    "block",
                    models.OneToOneField(
                        on_delete=django.db.models.deletion.PROTECT,
                        primary_key=True,
                        serialize=False,
                        to="trading.journalblock",
                    ),
                ),
                ("made_at", models.DateTimeField()),
            ],
        ),
        migrations.CreateModel(
            name="Balance",
            fields=[
                (
                    "pk",
                    models.CompositePrimaryKey(
                        "account_id", "block_id", blank=True, editable=False, primary_key=True, serialize=False
                    ),
                ),
                (
                    "account",
                    models.ForeignKey(
                        db_index=False,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="+",
                        to="trading.account",
                    ),
                ),
                (
                    "block",
                    models.ForeignKey(
                        db_index=False,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="balances",
                        to="trading.checkpoint",
                    ),
                ),
                ("posted", aitbc.core.fields.AmountField(decimal_places=0, max_digits=38)),
                ("held", aitbc.core.fields.AmountField(decimal_places=0, max_digits=38)),
            ],
        ),
        migrations.AddField(
            model_name="transfer",
            name="expires_at",
            field=models.DateTimeField(help_text="Of a hold with a time-out.", null=True),
        ),
        migrations.AlterField(
            model_name="transfer",
            name="state",
            field=models.CharField(
                choices=[
                    ("pending", "Pending: held on the debit account"),
                    ("posted", "Posted"),
                    ("voided", "Voided"),
                    ("expired", "Expired: its time was over before it was resolved"),
                ],
                max_length=8,
            ),
        ),
        migrations.RemoveConstraint(model_name="transfer", name="transfer_sides"),
        migrations.AddConstraint(
            model_name="transfer",
            constraint=models.CheckConstraint(
                condition=Q(("credit__isnull", False), ("hold__isnull", True))
                | Q(("credit__isnull", False), ("state", "posted"))
                | Q(("credit__isnull", True), ("hold__isnull", True))
                | Q(("credit__isnull", True), ("hold__isnull", False), ("state__in", ["voided", "expired"])),
                name="transfer_sides",
            ),
        ),
        run_file(SQL / "ledger.sql"),
        run_file(SQL / "rules.sql"),
        run_file(SQL / "journal.sql"),
        run_file(SQL / "checkpoints.sql"),
        restrict("trading_holdtimer", "SELECT"),
        restrict("trading_checkpoint", "SELECT"),
        restrict("trading_balance", "SELECT"),
    ]
