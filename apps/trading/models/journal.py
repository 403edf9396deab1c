"""The hash chain over the ledger; only the SQL function `journal_seal` writes it."""

from django.db import models

from aitbc.core.fields import HashField


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
