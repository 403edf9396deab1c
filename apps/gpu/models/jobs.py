"""Jobs, their queue, their failed attempts, results and receipts."""

from django.conf import settings
from django.contrib.postgres.fields import ArrayField
from django.contrib.postgres.indexes import BrinIndex
from django.db import models
from django.db.models import Q

from aitbc.core.fields import AmountField, HashField


class JobClass(models.Model):
    """What a job asks of a miner. Few rows; every queued job points to one, so a claim tests classes only."""

    id = models.AutoField(primary_key=True)
    key = models.BinaryField(max_length=32, unique=True, editable=False)
    kind = models.CharField(max_length=40)
    gpu_model = models.CharField(max_length=100, null=True)
    min_vram_mb = models.PositiveIntegerField(null=True)
    cuda = ArrayField(models.IntegerField(), null=True, help_text="Least CUDA version, as numbers.")
    region = models.CharField(max_length=40, null=True)
    model_names = ArrayField(models.CharField(max_length=100), default=list)
    min_reliability = models.FloatField(null=True)
    miner = models.UUIDField(
        null=True, help_text="Only this miner: the job names one of its offers, or an order on it."
    )
    holder = models.UUIDField(null=True, help_text="The order that pays, on devices that it occupies.")
    budget = AmountField(
        default=0, help_text="No job of the class can pay more for a device second; 0: priced otherwise."
    )
    vtime = models.BigIntegerField(default=0, help_text="Rank last claimed: microseconds of virtual device time.")
    vtime_at = models.DateTimeField(null=True)

    class Meta:
        db_table = "gpu_job_class"
        verbose_name_plural = "job classes"

    def __str__(self) -> str:
        return f"{self.kind} #{self.pk}"


class Job(models.Model):
    class State(models.TextChoices):
        QUEUED = "queued", "Queued"
        LEASED = "leased", "Leased"
        RUNNING = "running", "Running"
        COMPLETED = "completed", "Completed"
        FAILED = "failed", "Failed"
        CANCELED = "canceled", "Canceled"
        EXPIRED = "expired", "Expired"

    id = models.UUIDField(primary_key=True)
    client = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="jobs", db_constraint=False, db_index=False
    )
    kind = models.CharField(max_length=40)
    state = models.CharField(max_length=9, choices=State)
    priority = models.SmallIntegerField(default=0)
    job_class = models.ForeignKey(JobClass, on_delete=models.PROTECT, db_constraint=False, db_index=False)
    input = models.JSONField(null=True)
    input_artifact = HashField(null=True)
    artifacts = ArrayField(
        models.CharField(max_length=64), default=list, help_text="What the miner must download; all the client's."
    )
    digest = models.BinaryField(max_length=32, help_text="SHA-256 of what was submitted, for repeats of its id.")
    salt = models.BinaryField(max_length=32, help_text="Of the commitments; for the job's parties only.")
    offer_id = models.UUIDField(null=True)
    order_id = models.UUIDField(null=True, help_text="Of the market; it pays, so that the job holds and costs nothing.")
    max_price = AmountField(help_text="Held in escrow; the bill never exceeds it.")
    surcharge_bps = models.IntegerField(default=0, help_text="What its priority adds to the unit price.")
    rank = models.BigIntegerField(null=True, help_text="Its place in the queue, kept for when a lease is lost.")
    listed_price = AmountField(null=True, help_text="Price of the named offer at submission.")
    created_at = models.DateTimeField()
    expires_at = models.DateTimeField(help_text="End of its time in the queue.")
    attempts = models.PositiveSmallIntegerField(default=0)
    # The lease of the current attempt
    miner = models.ForeignKey(
        "gpu.Miner", null=True, on_delete=models.PROTECT, related_name="jobs", db_constraint=False, db_index=False
    )
    lease_token = models.UUIDField(null=True)
    unit_price = AmountField(null=True, help_text="Agreed at the lease, smallest units per device second.")
    fee_bps = models.SmallIntegerField(null=True, help_text="The platform's share, agreed at the lease.")
    max_ms = models.BigIntegerField(null=True, help_text="What the escrow can pay for; enforced as a kill.")
    leased_at = models.DateTimeField(null=True)
    started_at = models.DateTimeField(null=True)
    lease_expires_at = models.DateTimeField(null=True)
    progress = models.JSONField(null=True)
    # The end
    finished_at = models.DateTimeField(null=True)
    units_ms = models.BigIntegerField(null=True)
    error_code = models.CharField(max_length=60, null=True)
    error_message = models.CharField(max_length=2000, null=True)

    class Meta:
        ordering = ("-id",)
        indexes = [
            models.Index(fields=["client", "-id"], name="job_of_client"),
            models.Index(fields=["miner", "-id"], name="job_of_miner"),
            models.Index(fields=["miner"], name="job_held", condition=Q(state__in=("leased", "running"))),
            models.Index(
                fields=["order_id"],
                name="job_of_order",
                condition=Q(order_id__isnull=False, state__in=("queued", "leased", "running")),
            ),
            # For figures over a span of time: rows come nearly in order, so a page range costs a few bytes.
            BrinIndex(fields=["created_at"], name="job_created", autosummarize=True),
            BrinIndex(fields=["finished_at"], name="job_finished", autosummarize=True),
        ]
        constraints = [
            models.CheckConstraint(
                condition=Q(input__isnull=False) | Q(input_artifact__isnull=False), name="job_has_input"
            ),
            models.CheckConstraint(
                condition=~Q(state__in=("leased", "running"))
                | Q(
                    miner__isnull=False,
                    lease_token__isnull=False,
                    lease_expires_at__isnull=False,
                    unit_price__isnull=False,
                ),
                name="job_lease_complete",
            ),
            models.CheckConstraint(
                condition=Q(state__in=("queued", "leased", "running")) | Q(finished_at__isnull=False),
                name="job_final_has_end",
            ),
            models.CheckConstraint(
                condition=Q(order_id__isnull=True, max_price__gt=0) | Q(order_id__isnull=False, max_price=0),
                name="job_pays_or_its_order",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.kind} {self.id}"


class QueuedJob(models.Model):
    """The narrow queue: the row goes when the job is claimed and comes back when its lease is lost."""

    job = models.OneToOneField(
        Job, primary_key=True, on_delete=models.CASCADE, related_name="queued", db_constraint=False
    )
    client_id = models.UUIDField()
    priority = models.SmallIntegerField()
    job_class = models.ForeignKey(JobClass, on_delete=models.PROTECT, db_constraint=False, db_index=False)
    rank = models.BigIntegerField(help_text="Smaller is sooner: start-time-fair, see docs/adr/0012.")
    since = models.DateTimeField(help_text="Submission; the older one of equal ranks is first.")
    max_price = AmountField(help_text="What it can pay for a device second, before its priority's surcharge.")
    expires_at = models.DateTimeField()
    avoid = models.UUIDField(null=True, help_text="A miner whose failure another one must reproduce first.")

    class Meta:
        db_table = "gpu_job_queue"
        indexes = [
            models.Index(fields=["job_class", "rank", "since"], name="queue_order"),
            models.Index(fields=["client_id", "priority", "job_class", "rank"], name="queue_of_client"),
            models.Index(fields=["expires_at"], name="queue_expiry"),
        ]

    def __str__(self) -> str:
        return f"queued {self.job_id}"


class Attempt(models.Model):
    """A try that did not complete its job: who, how long, and why it ended."""

    id = models.BigAutoField(primary_key=True)
    job = models.ForeignKey(Job, on_delete=models.CASCADE, related_name="failed_attempts", db_constraint=False)
    attempt = models.PositiveSmallIntegerField()
    miner = models.ForeignKey("gpu.Miner", on_delete=models.PROTECT, related_name="+", db_constraint=False)
    leased_at = models.DateTimeField()
    started_at = models.DateTimeField(null=True)
    ended_at = models.DateTimeField()
    ms = models.BigIntegerField(default=0)
    code = models.CharField(max_length=60)
    message = models.CharField(max_length=2000)
    fault = models.CharField(max_length=8, choices=[(x, x) for x in ("client", "provider", "platform")])

    class Meta:
        indexes = [BrinIndex(fields=["ended_at"], name="attempt_ended", autosummarize=True)]
        constraints = [models.UniqueConstraint(fields=["job", "attempt"], name="attempt_once")]

    def __str__(self) -> str:
        return f"attempt {self.attempt} of {self.job_id}"


class JobResult(models.Model):
    job = models.OneToOneField(
        Job, primary_key=True, on_delete=models.CASCADE, related_name="result", db_constraint=False
    )
    output = models.JSONField(null=True)
    output_artifact = HashField(null=True)
    metrics = models.JSONField(default=dict)
    digest = models.BinaryField(max_length=32, help_text="SHA-256 of the accepted report, for its repeats.")

    class Meta:
        db_table = "gpu_job_result"

    def __str__(self) -> str:
        return f"result of {self.job_id}"


class Receipt(models.Model):
    """The document as signed; the anchor is added when it is shown, from the settlement."""

    job = models.OneToOneField(
        Job, primary_key=True, on_delete=models.PROTECT, related_name="receipt", db_constraint=False
    )
    document = models.JSONField()
    leaf = HashField(help_text="Keccak-256 of the canonical document.")
    created_at = models.DateTimeField(db_default=models.functions.Now())

    class Meta:
        ordering = ("-created_at",)

    def __str__(self) -> str:
        return f"receipt of {self.job_id}"


class JobLog(models.Model):
    """Lines of a job's log as one report brought them: appended, never changed, gone with the job."""

    pk = models.CompositePrimaryKey("job_id", "seq")
    job = models.ForeignKey(Job, on_delete=models.CASCADE, related_name="log", db_constraint=False, db_index=False)
    seq = models.IntegerField(help_text="From 1, in the order of arrival.")
    attempt = models.PositiveSmallIntegerField()
    upto = models.IntegerField(help_text="Lines of this attempt that were reported with this row or before.")
    size = models.IntegerField(help_text="Bytes kept of this attempt with this row; above the limit: cut off.")
    lines = ArrayField(models.TextField())

    class Meta:
        db_table = "gpu_job_log"
        db_table_comment = "app: SELECT, INSERT, DELETE"

    def __str__(self) -> str:
        return f"log {self.seq} of {self.job_id}"
