"""What a miner's score is made of, day by day (docs/reliability.md); written by sql/reliability.sql."""

from django.db import models

from aitbc.core.fields import HashField


class ReliabilityDay(models.Model):
    """A miner's day in UTC: time and leases that count, and the digest of its heartbeats once the day is sealed."""

    pk = models.CompositePrimaryKey("miner_id", "day")
    miner = models.ForeignKey("gpu.Miner", on_delete=models.CASCADE, related_name="days")
    day = models.DateField()
    up_seconds = models.FloatField(default=0)
    down_seconds = models.FloatField(default=0)
    completed = models.PositiveIntegerField(default=0)
    failed = models.PositiveIntegerField(default=0)
    digest = HashField(null=True)

    class Meta:
        db_table = "gpu_reliability_day"

    def __str__(self) -> str:
        return f"{self.miner_id} on {self.day}"


class HeartbeatRoot(models.Model):
    """The Merkle root over all miners' digests of a day; an audit event takes it into the anchored journal."""

    day = models.DateField(primary_key=True)
    root = HashField()
    miners = models.PositiveIntegerField()
    sealed_at = models.DateTimeField(db_default=models.functions.Now())

    class Meta:
        db_table = "gpu_heartbeat_root"

    def __str__(self) -> str:
        return f"{self.day}: {self.root}"
