"""Reviews and scores as the console shows them; tables and constraints are in `sql/trust.sql`."""

from django.conf import settings
from django.db import models


class Review(models.Model):
    id = models.UUIDField(primary_key=True)
    deal = models.UUIDField()
    author = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="+")
    subject = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="+")
    overall = models.SmallIntegerField()
    text = models.CharField(max_length=1000)
    state = models.CharField(max_length=8, choices=[(x, x.capitalize()) for x in ("pending", "approved", "rejected")])
    created_at = models.DateTimeField()

    class Meta:
        managed = False

    def __str__(self) -> str:
        return f"review {self.id}"


class Reputation(models.Model):
    """One row a user, made of his events."""

    user = models.OneToOneField(settings.AUTH_USER_MODEL, on_delete=models.PROTECT, primary_key=True, related_name="+")
    score = models.SmallIntegerField()
    ok, failed, lost = models.BigIntegerField(), models.BigIntegerField(), models.BigIntegerField()
    computed_at = models.DateTimeField()

    class Meta:
        managed = False

    def __str__(self) -> str:
        return f"{self.user_id}: {self.score}"
