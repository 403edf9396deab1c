"""Inputs and outputs: bytes by their SHA-256, and who may read them."""

from django.conf import settings
from django.db import models

from aitbc.core.fields import HashField


class Artifact(models.Model):
    """Bytes in the object store. Deduplication is internal: access follows the grants only."""

    sha256 = HashField(primary_key=True)
    size = models.BigIntegerField()
    created_at = models.DateTimeField(auto_now_add=True)

    def __str__(self) -> str:
        return str(self.sha256)


class ArtifactGrant(models.Model):
    """Comes from a full upload of the bytes, or from a job that made the user one of its parties."""

    id = models.BigAutoField(primary_key=True)
    artifact = models.ForeignKey(Artifact, on_delete=models.CASCADE, related_name="grants")
    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="+")
    job = models.UUIDField(null=True, help_text="The job that granted it; empty for an upload.")
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        db_table = "gpu_artifact_grant"
        constraints = [
            models.UniqueConstraint(
                fields=["artifact", "user", "job"], name="artifact_grant_once", nulls_distinct=False
            )
        ]

    def __str__(self) -> str:
        return f"{self.artifact_id} for {self.user_id}"


class Waiter(models.Model):
    """A process in which miners wait for work; submissions notify only while one is there."""

    process = models.CharField(primary_key=True, max_length=60)
    until = models.DateTimeField()

    def __str__(self) -> str:
        return self.process
