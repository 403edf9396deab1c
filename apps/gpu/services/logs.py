"""Keeping what jobs wrote, and letting a client follow it in the stream process."""

from collections.abc import Callable
from uuid import UUID

from django.core import signing
from django.db import transaction

from aitbc.core import db
from aitbc.core.errors import Unauthenticated
from apps.gpu.joblog import ATTEMPT_BYTES, clean

TICKET_SECONDS = 60  # between the redirect and its being followed
_ROW_BYTES = 64  # what a row costs beside its lines: many tiny reports reach the limit too
_CUT = f"[the log of this attempt passed {ATTEMPT_BYTES} bytes; the rest is not kept]"
_FULL = "[the logs of this client's jobs passed their quota; the rest of this attempt's is not kept]"
_SALT = "gpu.logs"
_LAST = """
SELECT j.attempts, coalesce(l.seq, 0), CASE WHEN l.attempt = j.attempts THEN l.upto ELSE 0 END,
       CASE WHEN l.attempt = j.attempts THEN l.size ELSE 0 END,
       coalesce(u.bytes >= parameter_value('max_log_bytes'), false)
  FROM gpu_job j LEFT JOIN gpu_log_usage u ON u.client_id = j.client_id LEFT JOIN LATERAL (
    SELECT * FROM gpu_job_log x WHERE x.job_id = j.id ORDER BY x.seq DESC LIMIT 1) l ON true
 WHERE j.id = %s
"""


def beside(report: Callable[[], str], *, job: UUID, lines: list[str], first: int | None) -> str:
    """Do `report`, which checks the lease and locks the job, and keep the lines: both or neither.

    `first` numbers the first line within the attempt, from 0, so that a repeated report is kept once;
    without it the lines follow what is kept.
    """
    with transaction.atomic():
        document = report()
        _append(job, lines, first)
    return document


def _append(job: UUID, lines: list[str], first: int | None) -> None:
    attempt, seq, upto, size, full = db.rows(_LAST, (job,))[0]
    first = upto if first is None else first
    fresh = lines[max(0, upto - first) :]
    if not fresh or size > ATTEMPT_BYTES:
        return
    if first > upto:
        fresh = [f"[{first - upto} lines did not arrive]", *fresh]
    kept, size = ([_FULL], ATTEMPT_BYTES + 1) if full else _within(fresh, size + _ROW_BYTES)
    db.rows(
        """INSERT INTO gpu_job_log (job_id, seq, attempt, upto, size, lines)
           VALUES (%s, %s, %s, %s, %s, %s::text[])""",
        (job, seq + 1, attempt, first + len(lines), size, kept),
    )


def _within(lines: list[str], size: int) -> tuple[list[str], int]:
    """The lines that still fit, with a last word where they do not, and the bytes then kept."""
    kept: list[str] = []
    for line in map(clean, lines):
        size += len(line.encode()) + 1
        if size > ATTEMPT_BYTES:
            return [*kept, _CUT], size
        kept.append(line)
    return kept, size


def ticket(*, client: UUID, job: UUID | str) -> str:
    """Lets its bearer follow this log: clients rightly do not send their key to where they are redirected."""
    return signing.dumps([str(client), str(job)], salt=_SALT)


def client_of(ticket: str, *, job: UUID | str) -> UUID:
    try:
        client, ticketed = signing.loads(ticket, salt=_SALT, max_age=TICKET_SECONDS)
    except signing.BadSignature:
        client = ticketed = None
    if ticketed != str(job):
        raise Unauthenticated("auth.ticket", "this ticket is not valid any more; ask for the log again")
    return UUID(client)
