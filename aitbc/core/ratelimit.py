"""Rate limits: a two-window sliding counter in Redis; without Redis, in process at its share.

The estimate is the current minute's count plus the last minute's weighted by how much of it the
sliding window still covers.
"""

import threading
import time
from dataclasses import dataclass
from functools import lru_cache

import redis
import structlog
from django.conf import settings

log = structlog.get_logger(__name__)
WINDOW = 60


@dataclass(frozen=True, slots=True)
class Verdict:
    admitted: bool
    limit: int
    remaining: int
    reset: int


@lru_cache(maxsize=1)
def _redis() -> "redis.Redis":
    return redis.Redis.from_url(settings.REDIS_URL, socket_timeout=0.25, socket_connect_timeout=0.25)


def admit(bucket: str, limit: int) -> Verdict:
    now = time.time()
    try:
        current, previous = _count(bucket, int(now // WINDOW))
    except redis.RedisError:
        log.warning("rate limits are counted in process: Redis does not answer")
        limit = max(1, limit // settings.WEB_PROCESSES)
        current, previous = _local.count(bucket, int(now // WINDOW))
    elapsed = now % WINDOW
    used = current + previous * (1 - elapsed / WINDOW)
    reset = max(1, int(WINDOW - elapsed))
    return Verdict(used <= limit, limit, max(0, int(limit - used)), reset)


def _count(bucket: str, window: int) -> tuple[int, int]:
    pipe = _redis().pipeline(transaction=False)
    pipe.incr(f"rl:{bucket}:{window}")
    pipe.expire(f"rl:{bucket}:{window}", 2 * WINDOW)
    pipe.get(f"rl:{bucket}:{window - 1}")
    current, _, previous = pipe.execute()
    return int(current), int(previous or 0)


class _Local:
    """Counts of this process; old windows are dropped as new ones come."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.counts: dict[tuple[str, int], int] = {}

    def count(self, bucket: str, window: int) -> tuple[int, int]:
        with self.lock:
            if len(self.counts) > 10_000:
                self.counts = {k: v for k, v in self.counts.items() if k[1] >= window - 1}
            current = self.counts[bucket, window] = self.counts.get((bucket, window), 0) + 1
            return current, self.counts.get((bucket, window - 1), 0)


_local = _Local()
