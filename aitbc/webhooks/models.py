"""Where users want to hear of what happened, and each notice on its way there."""

from django.conf import settings
from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models import Q

from aitbc.core.ids import uuid7


class Endpoint(models.Model):
    """A user's address. Its secret is derived from a nonce and the platform's key: no row reveals it."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    owner = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="webhooks")
    url = models.CharField(max_length=500)
    events = ArrayField(models.CharField(max_length=60), default=list, help_text="Empty: all of them.")
    enabled = models.BooleanField(default=True)
    disabled_reason = models.CharField(max_length=60, blank=True)
    nonce = models.BinaryField(max_length=16)
    previous_nonce = models.BinaryField(max_length=16, null=True)
    previous_until = models.DateTimeField(null=True, help_text="Until then the previous secret signs too.")
    failing_since = models.DateTimeField(null=True, help_text="No attempt has succeeded since.")
    paused_until = models.DateTimeField(null=True, help_text="The receiver asked for fewer requests.")
    created_at = models.DateTimeField()

    class Meta:
        ordering = ("-id",)

    def __str__(self) -> str:
        return self.url


class Delivery(models.Model):
    """An event for one endpoint: signed anew with each attempt, its body never changes."""

    class State(models.TextChoices):
        PENDING = "pending", "Pending: due at its time"
        DELIVERED = "delivered", "Delivered"
        DEAD = "dead", "Dead: every attempt failed"

    endpoint = models.ForeignKey(Endpoint, models.CASCADE, related_name="deliveries", db_index=False)
    event_id = models.UUIDField()
    event = models.CharField(max_length=100)
    body = models.TextField()
    state = models.CharField(max_length=9, choices=State)
    attempts = models.PositiveSmallIntegerField()
    due_at = models.DateTimeField()
    created_at = models.DateTimeField()
    attempted_at = models.DateTimeField(null=True)
    status = models.PositiveSmallIntegerField(null=True, help_text="HTTP status of the last answer.")
    error = models.CharField(max_length=200)

    class Meta:
        ordering = ("-event_id",)
        verbose_name_plural = "deliveries"
        indexes = [
            models.Index(fields=["endpoint", "due_at"], name="delivery_due", condition=Q(state="pending")),
            models.Index(fields=["endpoint", "event_id"], name="delivery_of_endpoint"),
        ]
        constraints = [
            models.UniqueConstraint(fields=["event_id", "endpoint"], name="delivery_once"),
            models.CheckConstraint(
                condition=~Q(state="delivered") | Q(status__gte=200, status__lt=300), name="delivery_taken"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.event} {self.event_id}"
