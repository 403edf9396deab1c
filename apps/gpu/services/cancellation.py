"""Ending a job on its client's or an operator's word."""

from uuid import UUID

from aitbc.core import db
from aitbc.core.errors import Conflict, NotFound


def cancel(*, client: UUID | None, job: UUID) -> str:
    """The job's document after it was canceled; `client=None` is the operator. Metered time is owed."""
    code, document = db.rows("SELECT * FROM gpu_cancel(%s::uuid, %s::uuid)", (client, job))[0]
    if code == "unknown":
        raise NotFound("job.unknown", "you have no such job")
    if code == "final":
        raise Conflict("job.final", "the job is over already")
    text: str = document
    return text
