"""ASGI entry point of the process in which miners wait: `GET /v1/miners/wait?seconds=`, and in which
clients follow the logs of their jobs (`aitbc.following`).

It only waits. One LISTEN connection serves all of them; no waiting miner holds a database connection,
and the claim itself stays on the web process (protocols 26).
"""

import asyncio
import contextlib
import os
import random
import socket
from typing import Any
from urllib.parse import parse_qs

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "aitbc.settings.local")

import django

django.setup()

import orjson
import psycopg
import structlog
from asgiref.sync import sync_to_async
from django.conf import settings
from django.db import Error, connections

from aitbc import following
from aitbc.core import auth, db
from aitbc.core.errors import DomainError, Forbidden, Invalid, NotFound, Unavailable

log = structlog.get_logger(__name__)
MOST_SECONDS = 30
# Woken miners poll within this time, not all in the same instant.
SPREAD_SECONDS = 0.25


class Waiters:
    """Those who wait in this process, and the one connection that hears of work."""

    def __init__(self) -> None:
        self.events: set[asyncio.Event] = set()
        self.name = f"{socket.gethostname()}:{os.getpid()}"
        self.task: asyncio.Task[None] | None = None

    def start(self) -> None:
        if self.task is None or self.task.done():
            self.task = asyncio.get_running_loop().create_task(self._listen())

    async def stop(self) -> None:
        if self.task is not None:
            self.task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self.task

    async def wait(self, seconds: float) -> bool:
        """Whether work may have come within `seconds`."""
        event = asyncio.Event()
        self.events.add(event)
        try:
            await asyncio.wait_for(event.wait(), seconds)
        except TimeoutError:
            return False
        finally:
            self.events.discard(event)
        await asyncio.sleep(random.random() * SPREAD_SECONDS)
        return True

    async def _listen(self) -> None:
        while True:
            try:
                async with await psycopg.AsyncConnection.connect(settings.DATABASE_URL, autocommit=True) as listener:
                    await self._hear(listener)
            except psycopg.Error as error:
                log.warning("waiting miners hear nothing: the database is away", error=str(error).split("\n")[0])
                await asyncio.sleep(1)

    async def _hear(self, listener: psycopg.AsyncConnection[Any]) -> None:
        """Submissions notify only while a waiter is on record, so the record is renewed before it ends."""
        await listener.execute("LISTEN gpu_work")
        while True:
            await listener.execute(
                """INSERT INTO gpu_waiter (process, until)
                   VALUES (%s, clock_timestamp() + interval '15 seconds')
                   ON CONFLICT (process) DO UPDATE SET until = excluded.until""",
                (self.name,),
            )
            async for _ in listener.notifies(timeout=5):
                for event in self.events:
                    event.set()


waiters = Waiters()


@sync_to_async
def _look(token: str) -> bool:
    """Check the key, and whether there is work already; the connection goes back at once."""
    try:
        principal = auth.authenticate(token)
        if not principal.has("miner"):
            raise Forbidden("auth.scope", "this key lacks the scope miner", scope="miner")
        ready = "key_id = %s AND state IN ('online', 'suspect') AND gpu_has_work(m, NULL)"
        return db.row(f"SELECT 1 FROM gpu_miner m WHERE {ready}", (principal.key_id,)) is not None
    except Error as error:
        raise Unavailable("database.unavailable", "the database does not answer") from error
    finally:
        connections.close_all()


async def application(scope: dict[str, Any], receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        await _lifespan(receive, send)
    elif scope["type"] == "http":
        await _answer(scope, receive, send)


async def _lifespan(receive: Any, send: Any) -> None:
    while True:
        message = await receive()
        if message["type"] == "lifespan.startup":
            waiters.start()
        else:
            await waiters.stop()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return


async def _answer(scope: dict[str, Any], receive: Any, send: Any) -> None:
    try:
        if (job := following.job_of(scope)) is not None:
            await following.follow(job, scope, receive, send)
            return
        status, body, retry = await _route(scope)
    except DomainError as error:
        problem = {
            "type": f"urn:aitbc:problem:{error.code}",
            "title": error.title,
            "status": error.status,
            "detail": error.message,
            "instance": scope["path"],
            "code": error.code,
            "request_id": os.urandom(12).hex(),
        }
        await _send(send, error.status, problem, "application/problem+json")
        return
    await _send(send, status, body, "application/json", retry=retry)


async def _route(scope: dict[str, Any]) -> tuple[int, dict[str, Any], bool]:
    if scope["path"] == "/health/live":
        return 200, {"status": "live", "waiting": len(waiters.events)}, False
    if scope["path"] != "/v1/miners/wait" or scope["method"] != "GET":
        raise NotFound("http.not_found", "this process only serves miners that wait and logs that are followed")
    seconds = _seconds(scope)
    header = dict(scope["headers"]).get(b"authorization", b"").decode("latin-1")
    if await _look(header.removeprefix("Bearer ").strip()):
        return 200, {"work": True}, False
    if len(waiters.events) >= settings.STREAM_WAITERS:
        return 200, {"work": False}, True
    waiters.start()
    return 200, {"work": await waiters.wait(seconds)}, False


def _seconds(scope: dict[str, Any]) -> float:
    text = parse_qs(scope["query_string"].decode("latin-1")).get("seconds", ["20"])[0]
    try:
        seconds = float(text)
    except ValueError as error:
        raise Invalid("request.invalid", "seconds is a number") from error
    if not 0 <= seconds <= MOST_SECONDS:
        raise Invalid("request.invalid", f"seconds lies between 0 and {MOST_SECONDS}")
    return seconds


async def _send(send: Any, status: int, body: dict[str, Any], media: str, *, retry: bool = False) -> None:
    headers = [(b"content-type", media.encode())] + ([(b"retry-after", b"1")] if retry else [])
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": orjson.dumps(body)})
