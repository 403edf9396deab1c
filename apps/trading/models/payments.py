"""The payment of a job: an escrow with a life of its own. `sql/escrow.sql` has more of its constraints."""

from django.conf import settings
from django.db import models
from django.db.models import F, Q

from aitbc.core.fields import AmountField


class Payment(models.Model):
    """Its id is also the id of the ledger hold. When final: held = released + fee + refunded."""

    class State(models.TextChoices):
        ESCROWED = "escrowed", "Escrowed"
        RELEASED = "released", "Released: all of it was earned"
        PARTIALLY_RELEASED = "partially_released", "Released in part, the rest refunded"
        REFUNDED = "refunded", "Refunded"
        EXPIRED = "expired", "Refunded: nobody took the job in time"
        DISPUTED = "disputed", "Disputed: an operator decides"

    id = models.UUIDField(primary_key=True)
    job = models.UUIDField(unique=True)
    client = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="payments", db_constraint=False, db_index=False
    )
    provider = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        null=True,
        on_delete=models.PROTECT,
        related_name="earnings",
        db_constraint=False,
        db_index=False,
    )
    asset = models.CharField(max_length=12)
    state = models.CharField(max_length=20, choices=State)
    held = AmountField()
    released = AmountField(default=0, help_text="What the provider got, the fee already taken off.")
    fee = AmountField(default=0)
    refunded = AmountField(default=0)
    created_at = models.DateTimeField()
    resolved_at = models.DateTimeField(null=True)
    matures_at = models.DateTimeField(null=True, help_text="End of the dispute window of the earning.")
    matured_at = models.DateTimeField(null=True)

    class Meta:
        indexes = [
            models.Index(fields=["client", "-id"], name="payment_of_client"),
            models.Index(fields=["provider", "resolved_at"], name="payment_of_provider"),
            models.Index(
                fields=["matures_at"],
                name="payment_maturing",
                condition=Q(matured_at__isnull=True, matures_at__isnull=False),
            ),
        ]
        constraints = [
            models.CheckConstraint(condition=Q(held__gt=0), name="payment_held_positive"),
            models.CheckConstraint(
                condition=Q(released__gte=0, fee__gte=0, refunded__gte=0), name="payment_parts_not_negative"
            ),
            models.CheckConstraint(
                condition=Q(state="escrowed", released=0, fee=0, refunded=0)
                | (~Q(state="escrowed") & Q(held=F("released") + F("fee") + F("refunded"))),
                name="payment_adds_up",
            ),
        ]

    def __str__(self) -> str:
        return f"payment {self.id}"
