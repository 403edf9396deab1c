"""What clients read of the logs of their jobs, as text and as server-sent events."""

from collections.abc import Iterable
from uuid import UUID

from aitbc.core import db
from aitbc.core.errors import NotFound
from apps.gpu.selectors.jobs import FINAL

EVENTS = "text/event-stream"
RETRY = "retry: 2000\n\n"  # milliseconds until the client may ask for what came since
Row = tuple[int, list[str]]


def lines_after(*, client: UUID, job: UUID, seq: int) -> tuple[str, list[Row]]:
    """(the job's state, numbered groups of lines after `seq`). The state is read first: a final one means
    that no lines will follow these."""
    found = db.row("SELECT state FROM gpu_job WHERE id = %s AND client_id = %s", (job, client))
    if found is None:
        raise NotFound("job.unknown", "you have no such job")
    rows = "SELECT seq, lines FROM gpu_job_log WHERE job_id = %s AND seq > %s ORDER BY seq"
    return found[0], [(number, lines) for number, lines in db.rows(rows, (job, seq))]


def as_text(rows: Iterable[Row]) -> str:
    return "".join(f"{line}\n" for _, lines in rows for line in lines)


def as_events(state: str, rows: Iterable[Row]) -> str:
    """One event per group of lines, and `end` once the job is final. Lines hold no line breaks, so none
    can pass for a field of its own."""
    text = "".join(f"id: {seq}\n" + "".join(f"data: {line}\n" for line in lines) + "\n" for seq, lines in rows)
    return text + (f'event: end\ndata: {{"state":"{state}"}}\n\n' if state in FINAL else "")


def last_event(given: str) -> int:
    """The number after which events are wanted; a header that is none of ours asks for all."""
    return int(given) if given.isascii() and given.isdecimal() and len(given) < 10 else 0
