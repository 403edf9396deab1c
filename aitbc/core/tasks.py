"""What every Celery task has in common, and what happens to one that fails for good."""

from typing import Any

from celery import shared_task

from aitbc.core import db
from aitbc.core.errors import Unavailable

# Only `Unavailable` says that a retry is useful.
RETRY_UNAVAILABLE: dict[str, Any] = {
    "autoretry_for": (Unavailable,),
    "retry_backoff": True,
    "retry_backoff_max": 300,
    "retry_jitter": True,
    "max_retries": 8,
}


@shared_task(name="core.forget_old_keys")
def forget_old_keys(limit: int = 50_000) -> int:
    """Idempotency keys live 72 hours."""
    count: int = db.value(
        """WITH gone AS (DELETE FROM core_idempotency WHERE ctid = ANY (ARRAY(
             SELECT ctid FROM core_idempotency WHERE created_at < now() - interval '72 hours' LIMIT %s))
           RETURNING 1) SELECT count(*)::int FROM gone""",
        (limit,),
    )
    return count
