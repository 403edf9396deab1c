"""The platform notes that it is up, so that its own outages count for nobody (protocols 16)."""

from datetime import datetime, timedelta

from aitbc.core import clock, db
from aitbc.core.models import PlatformTick

EVERY_SECONDS = 5
OUTAGE_SECONDS = 15


def tick(process: str = "relay") -> None:
    """Write the moment; a gap since the last one was an outage, which ends with this call."""
    db.rows(
        """INSERT INTO core_platform_tick (process, at, resumed_at)
           VALUES (%s, clock_timestamp(), clock_timestamp())
           ON CONFLICT (process) DO UPDATE SET at = clock_timestamp(), resumed_at = CASE
             WHEN core_platform_tick.at < clock_timestamp() - %s * interval '1 second' THEN clock_timestamp()
             ELSE core_platform_tick.resumed_at END""",
        (process, OUTAGE_SECONDS),
    )


def in_grace(seconds: int, process: str = "relay") -> bool:
    """Whether the platform is, or was until `seconds` ago, unable to hear anybody."""
    last = PlatformTick.objects.filter(process=process).first()
    if last is None:
        return False  # no relay ran yet on this database: nothing to compare with
    now: datetime = clock.database_now()
    stale = last.at < now - timedelta(seconds=OUTAGE_SECONDS)
    return stale or last.resumed_at > now - timedelta(seconds=seconds)
