"""Logs of heartbeats as a miner's days would have left them."""

from datetime import timedelta

from aitbc.core import clock
from aitbc.core.testing.cast import Seller
from apps.gpu.models import Heartbeat
from apps.gpu.tests.beats import beat


def beats_at(miner: Seller, *ages: float, signed: bool = True) -> None:
    """Beats that arrived `ages` seconds ago, the oldest first."""
    assert list(ages) == sorted(ages, reverse=True)
    now = clock.database_now()
    for age in ages:
        assert beat(miner, signed=signed).status_code == 200
        newest = Heartbeat.objects.filter(miner=miner.miner_id).latest("sequence")
        Heartbeat.objects.filter(pk=newest.pk).update(received_at=now - timedelta(seconds=age))
