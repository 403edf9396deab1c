"""What leaves above a threshold waits for a second person (protocols 9)."""

from datetime import timedelta
from typing import Final

from django.conf import settings
from django.db import models
from django.db.models import F, Q

REVIEW_TIME: Final = timedelta(days=1)


class Reviewed(models.Model):
    """Approved in time by somebody who takes no part in it, or never sent; see `sql/reviews.sql`."""

    review_until = models.DateTimeField(null=True, help_text="Empty: one person's word is enough.")
    approved_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, on_delete=models.PROTECT, related_name="+", db_index=False
    )
    approved_at = models.DateTimeField(null=True)
    approval = models.CharField(max_length=132, default="0x", help_text="The approver's EIP-712 signature.")

    class Meta:
        abstract = True
        constraints = [
            models.CheckConstraint(
                condition=Q(approved_by__isnull=True, approved_at__isnull=True, approval="0x")
                | Q(
                    approved_by__isnull=False,
                    approved_at__lte=F("review_until"),
                    review_until__isnull=False,
                    approval__regex="^0x[0-9a-f]{130}$",
                ),
                name="%(class)s_approved_in_time",
            ),
            models.CheckConstraint(
                condition=Q(review_until__isnull=True, approved_by__isnull=True)
                | Q(review_until__isnull=False, approved_by__isnull=False)
                | Q(review_until__isnull=False, state__in=("review", "lapsed", "canceled")),
                name="%(class)s_reviewed",
            ),
            models.CheckConstraint(
                condition=~Q(state="review") | Q(review_until__isnull=False, approved_by__isnull=True),
                name="%(class)s_in_review",
            ),
        ]
