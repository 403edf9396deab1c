"""How many tasks the platform's own workers should get now."""

import redis
from django.conf import settings

from aitbc.core import db
from aitbc.core.errors import Unavailable

QUEUE = "gpu"
MOST = 4


def due() -> int:
    """Queued jobs, capped, less the tasks that wait in the broker already."""
    queued: int = db.value("SELECT count(*)::int FROM (SELECT 1 FROM gpu_job_queue LIMIT %s) x", (MOST,))
    return max(0, queued - _waiting())


def _waiting() -> int:
    try:
        with redis.Redis.from_url(settings.REDIS_URL, socket_timeout=2) as broker:
            return int(broker.llen(QUEUE))
    except redis.RedisError as error:
        raise Unavailable("broker.unavailable", "Redis does not answer") from error
