"""How long reads took, as every web process counts them: a histogram an hour in Redis, kept two hours."""

import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from itertools import accumulate
from typing import Any

import redis
import structlog
from django.conf import settings

HOUR, LEAST = 3600, 20  # seconds; measurements that make a percentile


@contextmanager
def measured(what: str) -> Iterator[None]:
    """Count the milliseconds of this block, rounded up to a power of two; one that fails is not counted."""
    begun = time.perf_counter()
    yield
    bucket, key = 1 << int((time.perf_counter() - begun) * 1000).bit_length(), _key(what, 0)
    _ask(lambda batch: batch.hincrby(key, str(bucket), 1).expire(key, 2 * HOUR))


def p95(what: str) -> int | None:
    """Milliseconds, this hour and the last: its bucket's end. None: too few measured, or Redis is away."""
    counts: Counter[int] = Counter()
    for found in _ask(lambda batch: batch.hgetall(_key(what, 0)).hgetall(_key(what, 1))):
        counts.update({int(bucket): int(n) for bucket, n in found.items()})
    below, total = accumulate(sorted(counts.items()), lambda a, b: (b[0], a[1] + b[1])), counts.total()
    return next(bucket for bucket, n in below if n * 100 >= total * 95) if total >= LEAST else None


def _key(what: str, hours_ago: int) -> str:
    return f"market:ms:{what}:{int(time.time()) // HOUR - hours_ago}"


def _ask(commands: Callable[[Any], Any]) -> list[Any]:
    try:
        return list(commands(_redis(settings.REDIS_URL).pipeline(transaction=False)).execute())
    except redis.RedisError:
        structlog.get_logger(__name__).warning("times are not measured: Redis does not answer")
        return []


@lru_cache(maxsize=4)
def _redis(url: str) -> Any:
    return redis.Redis.from_url(url, socket_timeout=0.25, socket_connect_timeout=0.25)
