"""Heartbeats: chained, now and then signed, acknowledged by the platform's signature (protocols 17)."""

from typing import Any
from uuid import UUID

import orjson
from django.conf import settings
from django.db import transaction

from aitbc.chain import signing
from aitbc.core import clock, db
from aitbc.core.errors import Conflict, Invalid
from aitbc.core.outbox import announce
from apps.gpu import receipts, statements
from apps.gpu.models import Heartbeat, Miner
from apps.gpu.services import challenges, miners

# Locked in the order of every other writer of jobs, else a batch of results and a beat could deadlock.
_RENEW = """
WITH held AS (SELECT id FROM gpu_job WHERE id = ANY (%s::uuid[])
                 AND miner_id = %s AND state IN ('leased', 'running')
               ORDER BY id FOR NO KEY UPDATE)
UPDATE gpu_job j
   SET lease_expires_at = clock_timestamp() + parameter_value('lease_seconds') * interval '1 second'
  FROM held WHERE j.id = held.id RETURNING j.id
"""


@transaction.atomic
def beat(
    *,
    key: UUID,
    sequence: int,
    previous: str,
    running: list[UUID],
    telemetry: list[dict[str, Any]],
    signature: str | None,
    samples: list[dict[str, Any]],
) -> dict[str, Any]:
    """Accept the next beat: renew its leases, note its samples, tell it what to cancel.

    `telemetry` is what the miner sent and signs, `samples` the same as checked for storing. A miner that
    signed off stays off until it registers again: a beat under way at that moment must not undo it.
    """
    miner = Miner.objects.select_for_update(no_key=True).filter(key_id=key).first() or miners.of_key(key)
    values = _expected(miner, sequence, previous, running, telemetry)
    head = statements.HEARTBEAT.hash(values)
    digest = signing.digest(statements.domain(settings.CHAIN_ID), statements.HEARTBEAT, values)
    if signature is not None and signing.recover(digest, signature) != miner.address:
        raise Invalid("heartbeat.signature", "the head was not signed by the miner's address")
    now = clock.database_now()
    Heartbeat.objects.create(
        miner=miner, sequence=sequence, previous=previous, head=head, received_at=now, signature=signature or "",
        body=values["body"], signer=miner.address if signature else None,
    )  # fmt: skip
    state = Miner.State.ONLINE if miner.state in ("suspect", "dead") else miner.state
    Miner.objects.filter(pk=miner.pk).update(sequence=sequence, head=head, last_seen_at=now, state=state)
    if miner.state == Miner.State.DEAD:
        announce("gpu.miner_returned", f"miner:{miner.pk}", {"miner": str(miner.pk)})
    if samples:
        db.rows("SELECT gpu_note_samples(%s, %s, %s::jsonb)", (miner.pk, now, orjson.dumps(samples).decode()))
    renewed = {job for (job,) in db.rows(_RENEW, (running, miner.pk))}
    return {
        "state": state,
        "cancel": [job for job in running if job not in renewed],
        "challenge": next(iter(asked := challenges.open_for(miner)), None),
        "challenges": asked,
        "acknowledgement": {
            "sequence": sequence,
            "head": "0x" + head.hex(),
            "received_at": now,
            "signature": receipts.platform_signer().sign(digest),
        },
    }


def _expected(
    miner: Miner, sequence: int, previous: str, running: list[UUID], telemetry: list[dict[str, Any]]
) -> dict[str, Any]:
    if sequence != miner.sequence + 1 or previous.lower() != miner.head:
        raise Conflict(
            "heartbeat.out_of_order",
            "this beat does not follow the last accepted one",
            expected={"sequence": miner.sequence + 1, "previous": miner.head},
        )
    return statements.heartbeat_values(
        miner=str(miner.pk),
        sequence=sequence,
        previous=bytes.fromhex(previous[2:]),
        telemetry=telemetry,
        running=[str(job) for job in running],
    )
