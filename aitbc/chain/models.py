"""What the chain worker keeps for itself (chain.db) and what of it every process may see (PostgreSQL).

The two databases never commit together (protocols 3): PostgreSQL holds intents of record and final
events, chain.db holds signed bytes, blocks and logs, and can be rebuilt from the chain.
"""

from django.db import models

from aitbc.core.fields import AddressField, HashField
from aitbc.core.ids import uuid7


class IntentQuerySet(models.QuerySet["Intent"]):
    def open(self) -> "IntentQuerySet":
        return self.exclude(state__in=[Intent.State.FINAL, Intent.State.FAILED])


class Intent(models.Model):
    """One wanted effect on the chain: at most one mined transaction, whatever crashes."""

    class State(models.TextChoices):
        REQUESTED = "requested", "requested"
        SIGNED = "signed", "signed, bytes stored"
        BROADCAST = "broadcast", "broadcast"
        MINED = "mined", "mined, not yet final"
        FINAL = "final", "final"
        FAILED = "failed", "failed for good"

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    network = models.CharField(max_length=20)
    kind = models.CharField(max_length=40)
    business_key = models.CharField(max_length=120)
    contract = models.CharField(max_length=40)
    function = models.CharField(max_length=40)
    args = models.JSONField()
    role = models.CharField(max_length=20, default="operator", help_text="whose key signs")
    payload_hash = HashField()
    state = models.CharField(max_length=10, choices=State, default=State.REQUESTED)
    sender = AddressField(null=True)
    nonce = models.BigIntegerField(null=True)
    tx_hash = HashField(null=True)
    block_number = models.BigIntegerField(null=True)
    gas_used = models.BigIntegerField(null=True)
    error = models.TextField(blank=True)
    created_at = models.DateTimeField(auto_now_add=True)
    updated_at = models.DateTimeField(auto_now=True)

    objects = IntentQuerySet.as_manager()

    class Meta:
        ordering = ("-id",)
        constraints = [
            models.UniqueConstraint(fields=["network", "business_key"], name="intent_business_key_once"),
            models.UniqueConstraint(fields=["network", "sender", "nonce"], name="intent_nonce_once"),
            models.CheckConstraint(
                condition=models.Q(state__in=["requested", "failed"]) | models.Q(tx_hash__isnull=False),
                name="intent_signed_has_tx",
            ),
        ]
        indexes = [
            models.Index(
                fields=["network", "created_at"], condition=~models.Q(state__in=["final", "failed"]), name="intent_open"
            )
        ]

    def __str__(self) -> str:
        return f"{self.kind} {self.business_key}"


class NetworkStatus(models.Model):
    """What everybody may know of a network, and the fence of its only worker."""

    network = models.CharField(max_length=20, primary_key=True)
    chain_id = models.BigIntegerField()
    epoch = models.BigIntegerField(default=0, help_text="grows with each worker that takes over")
    height = models.BigIntegerField(default=-1)
    final_height = models.BigIntegerField(default=-1, help_text="last block whose logs are in FinalEvent")
    final_hash = HashField(null=True)
    event_cursor = models.BigIntegerField(default=0, help_text="last FinalEvent that handlers have consumed")
    halted = models.TextField(blank=True, help_text="why credits and withdrawals stopped; empty: they run")
    problem = models.TextField(blank=True, help_text="last transient fault, cleared by a good round")
    updated_at = models.DateTimeField(auto_now=True)

    class Meta:
        verbose_name_plural = "network statuses"

    def __str__(self) -> str:
        return self.network


class Deployment(models.Model):
    network = models.CharField(max_length=20)
    name = models.CharField(max_length=40)
    address = AddressField()
    tx_hash = HashField()
    block_number = models.BigIntegerField(null=True)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["network", "name"], name="deployment_once_per_network")]

    def __str__(self) -> str:
        return f"{self.name} on {self.network}"


class FinalEvent(models.Model):
    """A log that lies at or below finality, decoded. `id` orders consumption."""

    network = models.CharField(max_length=20)
    contract = models.CharField(max_length=40)
    name = models.CharField(max_length=40)
    args = models.JSONField(help_text="amounts as decimal strings, bytes as 0x hex")
    block_number = models.BigIntegerField()
    block_hash = HashField()
    block_time = models.DateTimeField()
    tx_hash = HashField()
    ordinal = models.IntegerField(help_text="place of the log within its transaction")
    log_index = models.IntegerField()

    class Meta:
        ordering = ("-id",)
        constraints = [models.UniqueConstraint(fields=["network", "tx_hash", "ordinal"], name="finalevent_once")]
        indexes = [models.Index(fields=["network", "contract", "name", "id"], name="finalevent_by_name")]

    def __str__(self) -> str:
        return f"{self.contract}.{self.name} in block {self.block_number}"


class SignedTransaction(models.Model):
    """Signed bytes, stored before they are broadcast. `attempt` counts replacements of one nonce."""

    database = "chain"

    intent_id = models.UUIDField(null=True)
    sender = AddressField()
    nonce = models.BigIntegerField()
    attempt = models.IntegerField(default=0)
    raw = models.BinaryField()
    tx_hash = HashField(unique=True)
    gas = models.BigIntegerField(help_text="limit")
    max_fee = models.BigIntegerField(help_text="wei per gas")
    epoch = models.BigIntegerField()
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["sender", "nonce", "attempt"], name="signedtransaction_nonce_once"),
            models.UniqueConstraint(fields=["intent_id", "attempt"], name="signedtransaction_intent_once"),
        ]

    def __str__(self) -> str:
        return str(self.tx_hash)


class Block(models.Model):
    database = "chain"

    number = models.BigIntegerField(primary_key=True)
    hash = HashField()
    parent = HashField()
    timestamp = models.BigIntegerField()

    def __str__(self) -> str:
        return f"{self.number} {self.hash}"


class Log(models.Model):
    database = "chain"

    block = models.ForeignKey(Block, on_delete=models.CASCADE, related_name="logs")
    tx_hash = HashField()
    ordinal = models.IntegerField()
    log_index = models.IntegerField()
    address = AddressField()
    topics = models.JSONField()
    data = models.TextField()

    class Meta:
        constraints = [models.UniqueConstraint(fields=["block", "log_index"], name="log_once_per_block")]

    def __str__(self) -> str:
        return f"{self.tx_hash} {self.ordinal}"
