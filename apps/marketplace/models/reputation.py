"""Reviews as the console shows them; table and constraints are in `sql/trust.sql`."""

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
