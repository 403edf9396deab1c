from celery import shared_task

from aitbc.core import db


@shared_task(name="webhooks.forget")
def forget(limit: int = 50_000) -> int:
    """Deliveries are kept for 30 days."""
    return int(db.value("SELECT webhooks_forget(%s)", (limit,)))
