"""Money that a user sends to an address of his choice on a chain."""

from django.conf import settings
from django.db import models
from django.db.models import F, Q

from aitbc.core.fields import AddressField, AmountField, HashField
from apps.trading.models.reviews import Reviewed


class Withdrawal(Reviewed):
    """Its id is the ledger hold's, and the intent id that the contract accepts once (protocols 2)."""

    class State(models.TextChoices):
        REVIEW = "review", "In review: a second person must approve it"
        WAITING = "waiting", "Waiting: the address is new"
        SENDING = "sending", "Sending: asked of the chain"
        FINAL = "final", "Final on the chain"
        FAILED = "failed", "Failed: the amount is available again"
        CANCELED = "canceled", "Canceled: the amount is available again"
        LAPSED = "lapsed", "Lapsed: nobody approved it in time, the amount is available again"

    id = models.UUIDField(primary_key=True)
    user = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="withdrawals", db_index=False
    )
    network = models.CharField(max_length=20)
    address = AddressField()
    amount = AmountField()
    state = models.CharField(max_length=8, choices=State, default=State.WAITING)
    created_at = models.DateTimeField()
    not_before = models.DateTimeField(help_text="A new address waits before it is paid (protocols 9).")
    tx_hash = HashField(null=True)
    block = models.BigIntegerField(null=True)
    resolved_at = models.DateTimeField(null=True)

    class Meta:
        ordering = ("-id",)
        constraints = [
            *Reviewed.Meta.constraints,
            models.CheckConstraint(condition=~Q(approved_by=F("user")), name="withdrawal_second_person"),
            models.CheckConstraint(condition=Q(amount__gt=0), name="withdrawal_amount_positive"),
            models.CheckConstraint(
                condition=Q(state="final", tx_hash__isnull=False, resolved_at__isnull=False)
                | Q(state__in=("failed", "canceled", "lapsed"), resolved_at__isnull=False)
                | Q(state__in=("review", "waiting", "sending"), resolved_at__isnull=True),
                name="withdrawal_resolved",
            ),
        ]
        indexes = [
            models.Index(fields=["user", "-id"], name="withdrawal_of_user"),
            models.Index(fields=["address", "created_at"], name="withdrawal_to_address"),
            models.Index(fields=["not_before"], name="withdrawal_waiting", condition=Q(state="waiting")),
            models.Index(fields=["review_until"], name="withdrawal_in_review", condition=Q(state="review")),
        ]

    def __str__(self) -> str:
        return f"withdrawal {self.id}"
