"""Who sells compute, and on what hardware."""

from django.conf import settings
from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models import Q
from django.db.models.functions import Now

from aitbc.core.fields import AddressField, AmountField, HashField
from aitbc.core.ids import uuid7


class Miner(models.Model):
    """Its identity is the API key it registered with; another key cannot act for it."""

    class State(models.TextChoices):
        ONLINE = "online", "Online"
        SUSPECT = "suspect", "Suspect: silent for a while"
        DEAD = "dead", "Dead: its leases were returned"
        DRAINING = "draining", "Draining: finishes its work, takes no more"
        SUSPENDED = "suspended", "Suspended by the platform"
        OFFLINE = "offline", "Offline: signed off"

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    owner = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="miners")
    key = models.OneToOneField("accounts.ApiKey", on_delete=models.PROTECT, related_name="miner")
    name = models.CharField(max_length=100)
    region = models.CharField(max_length=40)
    state = models.CharField(max_length=10, choices=State, default=State.ONLINE)
    concurrency = models.PositiveSmallIntegerField(help_text="Declared slots: jobs it may hold at once.")
    kinds = ArrayField(models.CharField(max_length=40))
    model_names = ArrayField(models.CharField(max_length=100), default=list, blank=True)
    price = AmountField(help_text="Smallest units of the asset per device second.")
    asset = models.CharField(max_length=12, default="AIT")
    address = AddressField(help_text="Signs heartbeats and work statements.")
    sandbox = models.CharField(max_length=20, default="process", help_text="How it isolates jobs.")
    first_party = models.BooleanField(default=False, help_text="A Celery worker of the platform's own.")
    reliability = models.FloatField(null=True, help_text="Score 0..1 by the signed log; null: not enough of it.")
    vtime = models.BigIntegerField(default=0, db_default=0, help_text="Highest rank that it claimed.")
    created_at = models.DateTimeField(auto_now_add=True)
    last_seen_at = models.DateTimeField()
    sequence = models.BigIntegerField(default=0, help_text="Of the last accepted heartbeat.")
    head = HashField(help_text="Hash of the last accepted heartbeat.")
    reliability = models.FloatField(null=True, help_text="Score 0..1 by the signed log; null: not enough of it.")
    reliability_low = models.FloatField(null=True)
    reliability_high = models.FloatField(null=True)
    reliability_samples = models.PositiveIntegerField(default=0, help_text="Hours observed and leases ended.")
    reliability_at = models.DateTimeField(null=True, help_text="What came later is not in the score yet.")

    class Meta:
        ordering = ("-id",)
        indexes = [models.Index(fields=["state", "last_seen_at"], name="miner_liveness")]
        constraints = [
            models.CheckConstraint(condition=Q(concurrency__gt=0), name="miner_has_slots"),
            models.CheckConstraint(condition=Q(price__gt=0), name="miner_price_positive"),
        ]

    def __str__(self) -> str:
        return self.name


class Device(models.Model):
    """A card or a CPU share as its miner detected it; `verified` is what the platform measured."""

    class Kind(models.TextChoices):
        CUDA = "cuda", "NVIDIA GPU"
        ROCM = "rocm", "AMD GPU"
        CPU = "cpu", "CPU"

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    miner = models.ForeignKey(Miner, on_delete=models.PROTECT, related_name="devices")
    uuid = models.CharField(max_length=100)
    kind = models.CharField(max_length=4, choices=Kind)
    model = models.CharField(max_length=100)
    memory_mb = models.PositiveIntegerField()
    cuda = models.CharField(max_length=20, null=True, blank=True)
    driver = models.CharField(max_length=40, null=True, blank=True)
    claimed_tflops = models.FloatField(null=True, blank=True)
    claimed_memory_gbps = models.FloatField(null=True, blank=True)
    verified = models.BooleanField(default=False)
    tflops = models.FloatField(null=True, blank=True, help_text="By the last passed challenge.")
    memory_gbps = models.FloatField(null=True, blank=True, help_text="By the last passed challenge.")
    verified_at = models.DateTimeField(null=True, blank=True)
    refuted = models.CharField(max_length=200, blank=True, help_text="Why its last challenge failed, if it did.")
    # By a trigger (sql/catalogue.sql), from the columns above and the catalogue
    doubt = models.CharField(max_length=300, blank=True, help_text="Why it is not what it claims to be; empty: it may.")
    verified_model = models.CharField(max_length=100, null=True, help_text="The known card that it behaves like.")
    dl_score = models.FloatField(null=True, help_text="100 is an RTX 3090 (docs/hardware.md).")
    active = models.BooleanField(default=True)
    utilization = models.FloatField(null=True, blank=True)
    memory_used_mb = models.PositiveIntegerField(null=True, blank=True)
    temperature_c = models.FloatField(null=True, blank=True)
    power_w = models.FloatField(null=True, blank=True)
    sampled_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ("-id",)
        constraints = [
            models.UniqueConstraint(fields=["uuid"], condition=Q(active=True), name="device_active_uuid_unique")
        ]

    def __str__(self) -> str:
        return f"{self.model} ({self.uuid})"


class Heartbeat(models.Model):
    """The signed log of a miner's life, kept so that anyone can recompute its reliability."""

    id = models.BigAutoField(primary_key=True)
    miner = models.ForeignKey(Miner, on_delete=models.CASCADE, related_name="heartbeats")
    sequence = models.BigIntegerField()
    previous = HashField()
    head = HashField()
    received_at = models.DateTimeField()
    signature = models.CharField(max_length=132, blank=True)
    body = HashField(null=True, help_text="Of telemetry and running jobs; with it the head can be computed again.")
    signer = AddressField(null=True, help_text="Whose signature it is.")
    farewell = models.BooleanField(
        default=False, db_default=False, help_text="Then the miner signed off: its silence is no failure."
    )

    class Meta:
        indexes = [models.Index(fields=["miner", "received_at"], name="heartbeat_by_time")]
        constraints = [models.UniqueConstraint(fields=["miner", "sequence"], name="heartbeat_sequence_unique")]

    def __str__(self) -> str:
        return f"{self.miner_id} #{self.sequence}"


class Nonce(models.Model):
    """Single-use, short-lived: proves that a registration was signed for this platform, now."""

    value = models.CharField(primary_key=True, max_length=66)
    key = models.ForeignKey("accounts.ApiKey", on_delete=models.CASCADE, related_name="+")
    created_at = models.DateTimeField(db_default=Now())
    used_at = models.DateTimeField(null=True)

    def __str__(self) -> str:
        return self.value


class Challenge(models.Model):
    """Proof of hardware by commit, nonce and opened rows (protocols 19-20)."""

    class State(models.TextChoices):
        ISSUED = "issued", "Issued"
        COMMITTED = "committed", "Committed"
        WALKED = "walked", "Memory read"
        PASSED = "passed", "Passed"
        FAILED = "failed", "Failed"

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    miner = models.ForeignKey(Miner, on_delete=models.CASCADE, related_name="challenges")
    device = models.ForeignKey(Device, on_delete=models.CASCADE, related_name="challenges")
    state = models.CharField(max_length=9, choices=State, default=State.ISSUED)
    proof = models.CharField(max_length=7, default="compute", choices=[(x, x) for x in ("compute", "memory")])
    shown = models.BooleanField(default=False, help_text="The miner has heard of it; its clock began then.")
    walked_at = models.DateTimeField(null=True, help_text="Of memory: when the roots of all readings had come.")
    draw = models.CharField(max_length=66, blank=True, help_text="Of memory: drawn after that; picks the rows.")
    seed = models.CharField(max_length=66)
    n = models.PositiveIntegerField()
    rounds = models.PositiveIntegerField()
    steps = models.PositiveIntegerField()
    roots = models.JSONField(default=list)
    nonce = models.CharField(max_length=66, blank=True, help_text="Drawn after the commitment; picks the rows.")
    issued_at = models.DateTimeField()
    committed_at = models.DateTimeField(null=True)
    deadline = models.DateTimeField()
    tflops = models.FloatField(null=True)
    memory_gbps = models.FloatField(null=True)
    reason = models.CharField(max_length=200, blank=True)

    OPEN = (State.ISSUED, State.COMMITTED, State.WALKED)

    class Meta:
        ordering = ("-id",)
        constraints = [
            models.UniqueConstraint(
                fields=["device"],
                condition=Q(state__in=("issued", "committed", "walked")),
                name="challenge_one_open_per_device",
            )
        ]

    def __str__(self) -> str:
        return f"challenge {self.id}"
