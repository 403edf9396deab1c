"""Who has a device to himself, and when: the truth behind every order of the market."""

from django.contrib.postgres.fields import DateTimeRangeField
from django.db import models


class Occupancy(models.Model):
    """A span of time in which a device serves one order only; no two spans of a device overlap (sql/occupancy.sql).

    Rows are written by `gpu_occupy` and `gpu_vacate`; `holder` is the order's id, which gpu knows nothing else of.
    """

    id = models.BigAutoField(primary_key=True)
    device = models.ForeignKey("gpu.Device", on_delete=models.PROTECT, related_name="occupancies")
    holder = models.UUIDField(db_index=True)
    client_id = models.UUIDField()
    during = DateTimeRangeField()

    def __str__(self) -> str:
        return f"{self.device_id} for {self.holder}"
