"""What clients read of their jobs, as JSON text built by the database."""

from datetime import datetime
from typing import Any
from uuid import UUID

import orjson

from aitbc.core import db
from aitbc.core.errors import Conflict, DomainError, Invalid, NotFound, NotReady
from aitbc.core.pagination import decode, encode
from apps.gpu import receipts
from apps.trading.selectors.settlement import anchors

FINAL = ("completed", "failed", "canceled", "expired")
_RESULT = """
SELECT j.id, j.state, j.error_code, j.error_message, r.job_id IS NOT NULL,
       json_build_object('job_id', j.id, 'output', r.output,
                         'output_artifact', encode(r.output_artifact, 'hex'),
                         'metrics', r.metrics)::text,
       c.document, c.leaf, '0x' || encode(j.salt, 'hex')
  FROM gpu_job j LEFT JOIN gpu_job_result r ON r.job_id = j.id LEFT JOIN gpu_receipt c ON c.job_id = j.id
 WHERE j.id = ANY (%s::uuid[]) AND j.client_id = %s
"""
_RECEIPT = """
SELECT c.document, c.leaf, '0x' || encode(j.salt, 'hex') FROM gpu_job j
  JOIN gpu_receipt c ON c.job_id = j.id LEFT JOIN gpu_miner m ON m.id = j.miner_id
 WHERE j.id = %s AND (j.client_id = %s OR m.owner_id = %s)
"""


def job_document(*, client: UUID, job: UUID) -> str:
    found = db.row(
        """SELECT gpu_job_document(j, p)::text FROM gpu_job j LEFT JOIN trading_payment p ON p.job = j.id
            WHERE j.id = %s AND j.client_id = %s""",
        (job, client),
    )
    if found is None:
        raise NotFound("job.unknown", "you have no such job")
    text: str = found[0]
    return text


def page_of_jobs(
    *,
    client: UUID,
    state: str | None,
    kind: str | None,
    created_after: datetime | None,
    created_before: datetime | None,
    cursor: str | None,
    limit: int,
) -> str:
    """Newest first: ids are UUIDv7, so the id is the order; client-made ids within a second may swap."""
    after = decode(cursor, 1)
    found = db.rows(
        """SELECT j.id, gpu_job_document(j, p)::text FROM gpu_job j LEFT JOIN trading_payment p ON p.job = j.id
            WHERE j.client_id = %s AND (%s::text IS NULL OR j.state = %s)
              AND (%s::text IS NULL OR j.kind = %s)
              AND (%s::timestamptz IS NULL OR j.created_at > %s)
              AND (%s::timestamptz IS NULL OR j.created_at < %s)
              AND (%s::uuid IS NULL OR j.id < %s) ORDER BY j.id DESC LIMIT %s""",
        (
            *(client, state, state, kind, kind, created_after, created_after, created_before, created_before),
            *((key := _uuid(after)), key, limit + 1),
        ),
    )
    items = ",".join(document for _, document in found[:limit])
    more = orjson.dumps(encode(found[limit - 1][0]) if len(found) > limit else None).decode()
    return f'{{"items":[{items}],"next":{more}}}'


def _uuid(after: list[Any] | None) -> UUID | None:
    try:
        return UUID(str(after[0])) if after else None
    except ValueError as error:
        raise Invalid("request.cursor", "this cursor is not one of ours") from error


def result_document(*, client: UUID, job: UUID) -> str:
    found = db.row(_RESULT, ([job], client))
    if isinstance(refusal := _refusal(found), DomainError):
        raise refusal
    assert found is not None  # _refusal said so
    text: str = found[5]
    return text


def results(*, client: UUID, jobs: list[UUID]) -> list[dict[str, Any] | DomainError]:
    """Result and receipt of each job in the order asked for, or why there is none."""
    found = {row[0]: row for row in db.rows(_RESULT, (jobs, client))}
    anchors = _anchors([job for job, row in found.items() if row[4]])
    return [_result_item(found.get(job), anchors) for job in jobs]


def _result_item(row: tuple[Any, ...] | None, anchors: dict[UUID, Any]) -> dict[str, Any] | DomainError:
    if (refusal := _refusal(row)) or row is None:
        return refusal or NotFound("job.unknown", "you have no such job")
    receipt = receipts.disclose(orjson.loads(row[6]), anchor=anchors.get(row[0]), salt=row[8])
    return {"result": orjson.Fragment(row[5]), "receipt": receipt}


def _refusal(row: tuple[Any, ...] | None) -> DomainError | None:
    if row is None:
        return NotFound("job.unknown", "you have no such job")
    _, state, code, message, has_result = row[:5]
    if has_result:
        return None
    if state not in FINAL:
        return NotReady("job.not_ready", f"the job is {state}", retry_after=1)
    return Conflict(code or f"job.{state}", message or f"the job was {state}", state=state)


def receipt_document(*, user: UUID, job: UUID) -> dict[str, Any]:
    """The receipt with its anchor and, for the job's parties, the salt of its commitments."""
    found = db.row(_RECEIPT, (job, user, user))
    if found is None:
        raise NotFound("receipt.unknown", "there is no receipt of such a job of yours")
    document: dict[str, Any] = orjson.loads(found[0])
    return receipts.disclose(document, anchor=_anchors([job]).get(job), salt=found[2])


def _anchors(jobs: list[UUID]) -> dict[UUID, Any]:
    return {
        job: receipts.sign_anchor(
            leaf=found.leaf,
            root=found.root,
            proof=found.proof,
            tx_hash=found.tx_hash,
            chain_id=found.chain_id,
            block=found.block,
        )
        for job, found in anchors(jobs).items()
    }
