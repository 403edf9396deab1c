"""The hash chain over the ledger; only the SQL function `journal_seal` writes it."""

from django.db import models

from aitbc.core.fields import AmountField, HashField
from apps.trading.models.ledger import Account


class JournalBlock(models.Model):
    """All transfers and entries of the transactions since the block before, up to `upto`, in one hash."""

    number = models.BigIntegerField(primary_key=True, help_text="From 1, without gaps.")
    upto = models.BigIntegerField(unique=True, help_text="The first transaction id that is not in it.")
    lines = models.IntegerField(help_text="Transfers and entries in it.")
    digest = HashField(help_text="SHA-256 of its lines.")
    head = HashField(help_text="SHA-256 of number, head before, bound and digest; anchored on the chain.")
    sealed_at = models.DateTimeField()

    class Meta:
        ordering = ("-number",)

    def __str__(self) -> str:
        return f"journal block {self.number}"


class Checkpoint(models.Model):
    """All balances as of a sealed block; what did not move since the one before has no row of its own."""

    block = models.OneToOneField(JournalBlock, primary_key=True, on_delete=models.PROTECT)
    made_at = models.DateTimeField()

    def __str__(self) -> str:
        return f"checkpoint at {self.block_id}"


class Balance(models.Model):
    """An account at a checkpoint; only the SQL function `ledger_checkpoint` writes it."""

    pk = models.CompositePrimaryKey("account_id", "block_id")
    account = models.ForeignKey(Account, on_delete=models.PROTECT, related_name="+", db_index=False)
    block = models.ForeignKey(Checkpoint, on_delete=models.PROTECT, related_name="balances", db_index=False)
    posted = AmountField()
    held = AmountField()

    def __str__(self) -> str:
        return f"account {self.account_id} at {self.block_id}"
