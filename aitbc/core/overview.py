"""The platform's own figures for the console's dashboard, each read when it is asked for."""

from datetime import datetime
from typing import Any

import redis
from django.conf import settings

from aitbc.core import db


def outbox() -> dict[str, Any]:
    """Events waiting and dead, and since when the oldest waiting one waits."""
    waiting, dead, oldest = db.rows(
        """SELECT count(*) FILTER (WHERE NOT dead), count(*) FILTER (WHERE dead),
                  min(created_at) FILTER (WHERE NOT dead) FROM core_outbox"""
    )[0]
    return {"waiting": waiting, "dead": dead, "oldest": oldest}


def dead_tasks() -> int:
    """Tasks that failed for good and were not sent again."""
    return int(db.value("SELECT count(*) FROM core_dead_task WHERE requeued_at IS NULL"))


def last_tick() -> datetime | None:
    """When the platform last noted that it is up; None before its relay ever ran."""
    moment: datetime | None = db.value("SELECT max(at) FROM core_platform_tick")
    return moment


def queue_lengths(queues: tuple[str, ...]) -> dict[str, int] | None:
    """Messages waiting per Celery queue; None when Redis cannot be asked."""
    try:
        with redis.Redis.from_url(settings.CELERY_BROKER_URL, socket_timeout=1, socket_connect_timeout=1) as client:
            pipeline = client.pipeline(transaction=False)
            for queue in queues:
                pipeline.llen(queue)
            return dict(zip(queues, pipeline.execute(), strict=True))
    except (redis.RedisError, OSError):
        return None
