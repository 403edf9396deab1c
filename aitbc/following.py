"""`GET /v1/jobs/{id}/logs/follow` and `/stream` of the stream process: the log of a job as it grows, until it is final.

The web process sends clients here with a ticket; a key does as well. All who follow share one database
connection, for a short question each second.
"""

import asyncio
import contextlib
import re
import time
from functools import partial
from typing import Any, Final
from urllib.parse import parse_qs
from uuid import UUID

import structlog
from asgiref.sync import sync_to_async
from django.db import Error, connections

from aitbc.core import auth
from aitbc.core.errors import Conflict, DomainError, Forbidden, Unavailable
from apps.gpu.selectors.logs import EVENTS, FINAL, RETRY, as_events, last_event, lines_after
from apps.gpu.services import cancellation, logs

log = structlog.get_logger(__name__)
PLACES: Final = 500
LOOK_SECONDS: Final = 1
SILENT_SECONDS: Final = 15  # then a comment, so that no proxy takes the connection for dead
MOST_SECONDS: Final = 600  # then the client asks again, with a key that may have been revoked since
_PATH: Final = re.compile(r"/v1/jobs/([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})/(?:logs/follow|stream)", re.ASCII)
_open: set[object] = set()


def job_of(scope: dict[str, Any]) -> UUID | None:
    """The job whose log is to be followed; None for a request of another kind."""
    match = _PATH.fullmatch(scope["path"]) if scope["method"] == "GET" else None
    return UUID(match[1]) if match else None


async def follow(job: UUID, scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Raises DomainError only before anything was sent. Where all places are taken the client gets what
    there is and comes back, as the `retry` of server-sent events tells it to."""
    headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
    client = await sync_to_async(_client)(job, scope["query_string"].decode("latin-1"), headers)
    look = partial(sync_to_async(_look), client, job)
    after = last_event(headers.get(b"last-event-id", ""))
    state, after, text = await look(after)
    answer = [(b"content-type", EVENTS.encode()), (b"cache-control", b"no-store")]
    await send({"type": "http.response.start", "status": 200, "headers": answer})
    await _write(send, RETRY + text)
    if state not in FINAL and len(_open) < PLACES:
        gone = asyncio.ensure_future(_gone(receive))
        _open.add(gone)
        try:
            await _go_on(look, after, gone, send)
            if gone.done() and _cancels(scope["query_string"].decode("latin-1")):
                await sync_to_async(_cancel)(client, job)
        except DomainError as error:  # too late for another answer: the client comes back for it
            log.warning("a log cannot be followed any further", job=str(job), reason=error.message)
        finally:
            _open.discard(gone)
            gone.cancel()
    await send({"type": "http.response.body", "body": b""})


async def _go_on(look: Any, after: int, gone: "asyncio.Future[None]", send: Any) -> None:
    """Until the job is final, the client is gone, or the time is up."""
    begun = heard = time.monotonic()
    state = ""
    while state not in FINAL and time.monotonic() - begun < MOST_SECONDS:
        await asyncio.wait({gone}, timeout=LOOK_SECONDS)
        if gone.done():
            return
        state, after, text = await look(after)
        if text or time.monotonic() - heard >= SILENT_SECONDS:
            heard = time.monotonic()
            await _write(send, text or ":\n\n")


def _cancels(query: str) -> bool:
    return parse_qs(query).get("on_disconnect") == ["cancel"]


def _cancel(client: UUID, job: UUID) -> None:
    with contextlib.suppress(Conflict):  # it became final in the same moment
        _asked(lambda: cancellation.cancel(client=client, job=job))


def _client(job: UUID, query: str, headers: dict[bytes, str]) -> UUID:
    cancels = _cancels(query)
    if tickets := parse_qs(query).get("ticket"):
        return logs.client_of(tickets[0], job=f"{job}/cancel" if cancels else job)
    principal = _asked(lambda: auth.authenticate(headers.get(b"authorization", "").removeprefix("Bearer ").strip()))
    for scope in ["jobs:read"] + ["jobs:write"] * cancels:
        if not principal.has(scope):
            raise Forbidden("auth.scope", f"this key lacks the scope {scope}", scope=scope)
    return UUID(str(principal.user_id))


def _look(client: UUID, job: UUID, after: int) -> tuple[str, int, str]:
    state, rows = _asked(lambda: lines_after(client=client, job=job, seq=after))
    return state, rows[-1][0] if rows else after, as_events(state, rows)


def _asked(question: Any) -> Any:
    try:
        return question()
    except Error as error:
        connections.close_all()
        raise Unavailable("database.unavailable", "the database does not answer") from error


async def _gone(receive: Any) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _write(send: Any, text: str) -> None:
    await send({"type": "http.response.body", "body": text.encode(), "more_body": True})
