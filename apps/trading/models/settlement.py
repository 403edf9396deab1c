"""Receipts on their way to the chain: one leaf per receipt, many leaves per anchored batch."""

from django.db import models

from aitbc.core.fields import HashField


class ReceiptLeaf(models.Model):
    """Written by the SQL that finishes a job, in the same transaction; batched later."""

    id = models.BigAutoField(primary_key=True)
    job = models.UUIDField(unique=True)
    leaf = HashField()
    batch = models.ForeignKey(
        "trading.SettlementBatch",
        null=True,
        on_delete=models.PROTECT,
        related_name="leaves",
        db_constraint=False,
        db_index=False,
    )
    position = models.PositiveIntegerField(null=True)
    created_at = models.DateTimeField(db_default=models.functions.Now())

    class Meta:
        db_table = "trading_receipt_leaf"
        verbose_name_plural = "receipt leaves"
        indexes = [
            models.Index(fields=["id"], name="leaf_unbatched", condition=models.Q(batch__isnull=True)),
            models.Index(fields=["batch", "position"], name="leaf_of_batch", condition=models.Q(batch__isnull=False)),
        ]

    def __str__(self) -> str:
        return f"leaf of {self.job}"


class SettlementBatch(models.Model):
    """Anchoring moves no value: it fixes the receipts of the batch by their Merkle root."""

    class State(models.TextChoices):
        SEALED = "sealed", "Sealed: root computed"
        FINAL = "final", "Final on the chain"
        FAILED = "failed", "Failed"

    id = models.UUIDField(primary_key=True)
    network = models.CharField(max_length=20)
    state = models.CharField(max_length=8, choices=State, default=State.SEALED)
    root = HashField()
    receipts = models.PositiveIntegerField()
    created_at = models.DateTimeField(auto_now_add=True)
    tx_hash = HashField(null=True)
    block = models.BigIntegerField(null=True)
    gas_used = models.BigIntegerField(null=True)
    finalized_at = models.DateTimeField(null=True)

    class Meta:
        db_table = "trading_settlement_batch"
        verbose_name_plural = "settlement batches"
        ordering = ("-id",)
        constraints = [models.CheckConstraint(condition=models.Q(receipts__gt=0), name="settlement_batch_not_empty")]

    def __str__(self) -> str:
        return f"settlement {self.id}"
