"""Searches that people keep, and what they were told of."""

from django.conf import settings
from django.db import models

from aitbc.core.ids import uuid7
from apps.marketplace.models.offers import Offer


class Search(models.Model):
    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    owner = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="searches")
    name = models.CharField(max_length=100)
    q = models.CharField(max_length=4096, help_text="In the filter language.")
    alert = models.BooleanField(db_index=True, help_text="Tell the owner of offers that newly match.")
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ("-id",)
        verbose_name_plural = "searches"

    def __str__(self) -> str:
        return self.name


class SearchMatch(models.Model):
    """An offer that came to match; its owner was told of it, once."""

    id = models.BigAutoField(primary_key=True)
    search = models.ForeignKey(Search, on_delete=models.CASCADE, related_name="matches", db_index=False)
    offer = models.ForeignKey(Offer, on_delete=models.CASCADE, related_name="+")
    at = models.DateTimeField(auto_now_add=True)

    class Meta:
        db_table = "marketplace_search_match"
        ordering = ("-id",)
        constraints = [models.UniqueConstraint(fields=["search", "offer"], name="search_match_once")]

    def __str__(self) -> str:
        return f"{self.offer_id} fits {self.search_id}"
