"""Rate limits: a two-window sliding counter in Redis; without Redis, in process at its share.

The estimate is the current minute's count plus the last minute's weighted by how much of it the
sliding window still covers. What is refused is not counted: who waits as told is admitted.
"""

import math
import threading
import time
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import redis
import structlog
from django.conf import settings
from redis.backoff import NoBackoff
from redis.retry import Retry

log = structlog.get_logger(__name__)
WINDOW = 60
_AWAY_SECONDS = 1.0  # how long a Redis that failed is not asked again: a request would wait for it in vain
_SCRIPT = """
local current = tonumber(redis.call('GET', KEYS[1]) or 0)
local previous = tonumber(redis.call('GET', KEYS[2]) or 0)
if current + 1 + previous * tonumber(ARGV[2]) > tonumber(ARGV[1]) then return {0, current, previous} end
redis.call('INCR', KEYS[1])
redis.call('EXPIRE', KEYS[1], ARGV[3])
return {1, current + 1, previous}
"""


@dataclass(frozen=True, slots=True)
class Verdict:
    """`remaining` requests until `limit`; `reset` in seconds: when it is fresh again, or admits one more."""

    admitted: bool
    limit: int
    remaining: int
    reset: int


def admit(bucket: str, limit: int) -> Verdict:
    now = time.time()
    window, elapsed = int(now // WINDOW), now % WINDOW
    found = _shared(bucket, limit, window, 1 - elapsed / WINDOW)
    if found is None:
        limit = max(1, limit // settings.WEB_PROCESSES)
        found = _local.count(bucket, limit, window, 1 - elapsed / WINDOW)
    admitted, current, previous = found
    used = current + previous * (1 - elapsed / WINDOW)
    wait = WINDOW - elapsed if admitted else _wait(limit, current, previous, elapsed)
    return Verdict(bool(admitted), limit, max(0, int(limit - used)), max(1, math.ceil(wait)))


def _wait(limit: int, current: int, previous: int, elapsed: float) -> float:
    """Seconds until the estimate leaves room for one more, if nothing else comes."""
    room = limit - 1 - current
    if room >= 0:
        return WINDOW * (1 - room / previous) - elapsed
    return WINDOW - elapsed + WINDOW * (1 - (limit - 1) / current)


_away_until = 0.0


def _shared(bucket: str, limit: int, window: int, weight: float) -> Any:
    """(admitted, current, previous) of all processes in one round trip; None while Redis does not answer."""
    global _away_until
    if time.monotonic() < _away_until:
        return None
    try:
        keys = [f"rl:{bucket}:{window}", f"rl:{bucket}:{window - 1}"]
        return _script(settings.REDIS_URL)(keys=keys, args=[limit, weight, 2 * WINDOW])
    except redis.RedisError:
        _away_until = time.monotonic() + _AWAY_SECONDS
        log.warning("rate limits are counted in process: Redis does not answer")
        return None


@lru_cache(maxsize=4)
def _script(url: str) -> Any:
    at_once = Retry(NoBackoff(), 0)  # by default the client tries for seconds, with the request waiting
    client = redis.Redis.from_url(url, socket_timeout=0.25, socket_connect_timeout=0.25, retry=at_once)
    return client.register_script(_SCRIPT)


class _Local:
    """Counts of this process; old windows are dropped as new ones come."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.counts: dict[tuple[str, int], int] = {}

    def count(self, bucket: str, limit: int, window: int, weight: float) -> tuple[int, int, int]:
        with self.lock:
            if len(self.counts) > 10_000:
                self.counts = {k: v for k, v in self.counts.items() if k[1] >= window - 1}
            current = self.counts.get((bucket, window), 0)
            previous = self.counts.get((bucket, window - 1), 0)
            if current + 1 + previous * weight > limit:
                return 0, current, previous
            self.counts[bucket, window] = current + 1
            return 1, current + 1, previous


_local = _Local()
