"""Transactional outbox: the event is written with the change it tells of, and delivered after it.

Delivery runs in order per aggregate, at least once; receivers share the transaction that removes
the row, so their database effects happen once. One relay works on a partition at a time, by an
advisory lock that dies with its connection. A dead event halts its own aggregate only.
"""

from typing import Any

import structlog
from django.db import transaction

from aitbc.core import db, ports
from aitbc.core.events import Event, receivers
from aitbc.core.ids import uuid7
from aitbc.core.models import OutboxEvent

log = structlog.get_logger(__name__)
PARTITIONS = 64
MAX_ATTEMPTS = 8


def announce(event: str, aggregate: str, payload: dict[str, Any]) -> None:
    """Write `event` of `aggregate` inside the caller's transaction, under the aggregate's row lock."""
    db.inside_transaction()
    OutboxEvent.objects.create(event_id=uuid7(), event=event, aggregate=aggregate, payload=payload)


def relay_once(limit: int = 200) -> int:
    """Deliver due events of every partition that no other relay holds; returns how many."""
    partitions = db.rows(
        "SELECT DISTINCT partition FROM core_outbox WHERE NOT dead AND next_attempt_at <= clock_timestamp()"
    )
    return sum(_relay_partition(partition, limit) for (partition,) in partitions)


def _relay_partition(partition: int, limit: int) -> int:
    with transaction.atomic():
        if not db.value("SELECT pg_try_advisory_xact_lock(7001, %s)", (partition,)):
            return 0
        taken: int = sum(take(partition, limit) for take in ports.subscribers("outbox.take"))
        return taken + _deliver_batch(_due(partition, limit))


def _due(partition: int, limit: int) -> list[OutboxEvent]:
    """The oldest rows, less those that wait behind an earlier failed row of their aggregate."""
    return list(
        OutboxEvent.objects.raw(
            """SELECT o.* FROM core_outbox o WHERE o.partition = %s AND NOT o.dead
               AND o.next_attempt_at <= clock_timestamp() AND NOT EXISTS (
                 SELECT 1 FROM core_outbox e WHERE e.partition = o.partition AND e.aggregate = o.aggregate
                 AND e.id < o.id AND (e.dead OR e.next_attempt_at > clock_timestamp()))
               ORDER BY o.id LIMIT %s FOR UPDATE""",
            (partition, limit),
        )
    )


def _deliver_batch(due: list[OutboxEvent]) -> int:
    halted: set[str] = set()
    delivered = 0
    for record in due:
        if record.aggregate in halted:
            continue
        if _deliver(record):
            delivered += 1
        else:
            halted.add(record.aggregate)
    return delivered


def _deliver(record: OutboxEvent) -> bool:
    event = Event(record.event_id, record.event, record.aggregate, record.id, record.payload)
    try:
        with transaction.atomic():
            for receive in receivers(record.event):
                receive(event)
            record.delete()
    except Exception as error:  # whatever a receiver's fault is, it may halt its own aggregate only
        log.exception("event was not delivered", event_name=record.event, aggregate=record.aggregate)
        _postpone(record, repr(error))
        return False
    return True


def _postpone(record: OutboxEvent, reason: str) -> None:
    attempts = record.attempts + 1
    db.rows(
        """UPDATE core_outbox SET attempts = %s, dead = %s, last_error = %s,
           next_attempt_at = clock_timestamp() + %s * interval '1 second' WHERE id = %s""",
        (attempts, attempts >= MAX_ATTEMPTS, reason[:2000], min(300, 2**attempts), record.id),
    )
