"""Tables of the core: outbox, idempotency keys, dead letters of tasks, the platform's own heartbeat."""

from django.db import models
from django.db.models.functions import Now

from aitbc.core.ids import uuid7


class OutboxEvent(models.Model):
    """An event waiting for its receivers. Its row goes when the last of them has run."""

    id = models.BigAutoField(primary_key=True)
    event_id = models.UUIDField(unique=True, default=uuid7)
    event = models.CharField(max_length=100)
    aggregate = models.CharField(max_length=100)
    partition = models.GeneratedField(
        expression=models.Func(
            models.F("aggregate"),
            models.Value(0, models.BigIntegerField()),
            function="hashtextextended",
            output_field=models.BigIntegerField(),
        ).bitand(63),
        output_field=models.BigIntegerField(),
        db_persist=True,
    )
    payload = models.JSONField()
    created_at = models.DateTimeField(db_default=Now())
    attempts = models.PositiveSmallIntegerField(default=0)
    next_attempt_at = models.DateTimeField(db_default=Now())
    dead = models.BooleanField(default=False)
    last_error = models.TextField(blank=True)

    class Meta:
        db_table = "core_outbox"
        indexes = [
            models.Index(fields=["partition", "aggregate", "id"], name="outbox_order"),
            models.Index(fields=["next_attempt_at"], condition=models.Q(dead=False), name="outbox_due"),
        ]

    def __str__(self) -> str:
        return f"{self.event} of {self.aggregate}"


class IdempotencyKey(models.Model):
    """The stored answer of a machine write, kept 72 hours."""

    pk = models.CompositePrimaryKey("principal", "route", "key")
    principal = models.UUIDField()
    route = models.CharField(max_length=60)
    key = models.CharField(max_length=255)
    digest = models.BinaryField(max_length=32)
    status = models.PositiveSmallIntegerField()
    body = models.TextField()
    created_at = models.DateTimeField(db_default=models.functions.Now())

    class Meta:
        db_table = "core_idempotency"
        indexes = [models.Index(fields=["created_at"], name="idempotency_age")]

    def __str__(self) -> str:
        return f"{self.route} {self.key}"


class DeadTask(models.Model):
    """A Celery task that failed for good, as an operator needs it to decide and to send it again."""

    id = models.UUIDField(primary_key=True, default=uuid7)
    task_id = models.CharField(max_length=64, unique=True)
    name = models.CharField(max_length=200)
    queue = models.CharField(max_length=40)
    args = models.JSONField()
    kwargs = models.JSONField()
    error = models.TextField()
    traceback = models.TextField()
    failed_at = models.DateTimeField(auto_now_add=True, db_index=True)
    requeued_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        db_table = "core_dead_task"
        ordering = ("-failed_at",)

    def __str__(self) -> str:
        return f"{self.name} {self.task_id}"


class PlatformTick(models.Model):
    """The platform's own outages count for nobody (protocols 16): it writes a row while it is up."""

    id = models.SmallAutoField(primary_key=True)
    process = models.CharField(max_length=40, unique=True)
    at = models.DateTimeField()
    resumed_at = models.DateTimeField()

    class Meta:
        db_table = "core_platform_tick"

    def __str__(self) -> str:
        return f"{self.process} at {self.at}"


class PlatformOutage(models.Model):
    """A gap between two ticks of a process, kept by a trigger (sql/outages.sql); it counts for nobody."""

    id = models.BigAutoField(primary_key=True)
    process = models.CharField(max_length=40)
    began_at = models.DateTimeField()
    ended_at = models.DateTimeField(db_index=True)

    class Meta:
        db_table = "core_platform_outage"

    def __str__(self) -> str:
        return f"{self.process} until {self.ended_at}"
