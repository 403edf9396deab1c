"""Sends what is due, many at once. A claim is committed before its request and the outcome reported after it:
a sender that dies in between leaves a delivery that is due again a minute later, under the same id."""

import asyncio
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple
from uuid import UUID

import aiohttp
import uvloop
from aiohttp.abc import AbstractResolver
from django.db import Error, connections, transaction
from standardwebhooks import Webhook

from aitbc.core import db
from aitbc.webhooks.endpoints import keys
from aitbc.webhooks.guard import open_socket

MOST: Final = 800  # requests under way
AT_ONE: Final = 32  # of them to one endpoint: a slow one holds up nobody else
TIMEOUT: Final = 15.0
_REPORT: Final = "SELECT webhooks_report(%s::bigint[], %s::int[], %s::int[], %s::text[], %s::text[])"
_CLAIM: Final = "SELECT * FROM webhooks_claim(%s, %s, %s::uuid[], %s::int[])"


class Claimed(NamedTuple):
    """`now` is the database's, in Unix seconds."""

    id: int
    endpoint: UUID
    url: str
    nonces: list[bytes]
    event_id: UUID
    body: str
    attempts: int
    now: int

    def headers(self) -> dict[str, str]:
        event, at = str(self.event_id), datetime.fromtimestamp(self.now, UTC)
        signing = (Webhook(key) for nonce in self.nonces for key in keys(self.endpoint, bytes(nonce)))
        signatures = " ".join(one.sign(event, at, self.body) for one in signing)
        return {"webhook-id": event, "webhook-timestamp": str(self.now), "webhook-signature": signatures}


class Sender:
    """`round` is for the loop of `aitbc.core.daemon`: requests go on from one round to the next."""

    def __init__(self, resolver: AbstractResolver | None = None) -> None:
        self.loop = uvloop.new_event_loop()
        self.loop.set_default_executor(ThreadPoolExecutor(64))  # name servers may be slow
        self.database = ThreadPoolExecutor(1)
        self.tasks: set[asyncio.Task[None]] = set()
        self.busy: Counter[UUID] = Counter()
        self.outcomes: list[tuple[Any, ...]] = []
        self.loop.run_until_complete(self._open(resolver))

    async def _open(self, resolver: AbstractResolver | None) -> None:
        self.session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, resolver=resolver, socket_factory=open_socket),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=TIMEOUT),
            headers={"content-type": "application/json", "user-agent": "AITBC-Webhooks/1"},
        )

    def round(self, most: int = MOST) -> int:
        """Report what came back, claim, and start; how much is under way."""
        return self.loop.run_until_complete(self._round(most))

    async def _round(self, most: int) -> int:
        outcomes, self.outcomes, self.busy = self.outcomes, [], +self.busy
        arguments = (outcomes, max(0, most - len(self.tasks)), list(self.busy), list(self.busy.values()))
        claimed = await self.loop.run_in_executor(self.database, self._exchange, *arguments)
        for item in claimed:
            self.busy[item.endpoint] += 1
            self.tasks.add(task := self.loop.create_task(self._deliver(item)))
            task.add_done_callback(self.tasks.discard)
        if self.tasks and not claimed:
            await asyncio.wait(self.tasks, timeout=0.1, return_when=asyncio.FIRST_COMPLETED)
        return len(self.tasks) + len(self.outcomes)

    def _exchange(self, outcomes: list[Any], most: int, busy: list[UUID], counts: list[int]) -> list[Claimed]:
        try:
            with transaction.atomic():
                if outcomes:
                    db.rows(_REPORT, [list(column) for column in zip(*outcomes, strict=True)])
                return [Claimed(*row) for row in db.rows(_CLAIM, (most, AT_ONE, busy, counts))]
        except Error:
            self.outcomes[:0] = outcomes
            connections.close_all()
            raise

    async def _deliver(self, item: Claimed) -> None:
        status, error, wait = None, "", ""
        request: dict[str, Any] = {"data": item.body.encode(), "headers": item.headers(), "allow_redirects": False}
        try:
            async with self.session.post(item.url, **request) as answer:
                status, wait = answer.status, answer.headers.get("retry-after", "")
                if not answer.content.is_eof():  # a short body leaves the connection for the next request
                    async with asyncio.timeout(0.5):
                        await answer.content.read(4096)
        except Exception as failure:  # whatever a receiver does may fail its own delivery only
            error = str(failure) or type(failure).__name__
        self.busy[item.endpoint] -= 1
        words = [text[:200].encode("ascii", "replace").decode().replace("\0", "?") for text in (error, wait)]
        self.outcomes.append((item.id, item.attempts, status, *words))

    def close(self) -> None:
        """Wait for what is under way and report it. What takes longer is sent again after its minute."""
        self.loop.run_until_complete(asyncio.wait(self.tasks, timeout=10)) if self.tasks else None
        self.round(most=0)
        self.loop.run_until_complete(self.session.close())
        self.database.submit(connections.close_all).result()
        self.database.shutdown()
        self.loop.run_until_complete(self.loop.shutdown_default_executor())
        self.loop.close()
