"""Rule 26: waiting holds no database connection, claims nothing, and is capped."""

import asyncio
import time

import orjson
import pytest
from django.conf import settings as live
from django.db import connection
from psycopg.conninfo import make_conninfo

from aitbc import stream
from aitbc.core.testing import cast
from aitbc.core.testing.cast import AIT
from apps.gpu.models import Job, Waiter
from apps.gpu.tests.steps import submit


@pytest.fixture
def stage(committed_db, settings, monkeypatch):
    """Alice with money, Mike with a free slot, and the process in which he waits, on the tests' database."""
    settings.DATABASE_URL = make_conninfo(live.DATABASE_URL, dbname=connection.settings_dict["NAME"])
    monkeypatch.setattr(stream, "waiters", stream.Waiters())
    alice, mike = cast.person("alice"), cast.seller("mike")
    cast.fund(alice.id, AIT)
    return alice, mike


async def wait(token: str, seconds: float):
    """One `GET /v1/miners/wait` -> (status, headers, body)."""
    sent = []

    async def send(message):
        sent.append(message)

    scope = {
        "type": "http",
        "method": "GET",
        "path": "/v1/miners/wait",
        "query_string": f"seconds={seconds}".encode(),
        "headers": [(b"authorization", f"Bearer {token}".encode())],
    }
    await stream.application(scope, None, send)
    return sent[0]["status"], dict(sent[0]["headers"]), orjson.loads(sent[1]["body"])


def run(story):
    async def guarded():
        try:
            return await asyncio.wait_for(story(), 30)
        finally:
            await stream.waiters.stop()

    return asyncio.run(guarded())


def test_a_waiting_miner_is_woken_by_a_job_and_leases_nothing_by_waiting(stage):
    alice, mike = stage

    async def story():
        stream.waiters.start()
        while not await asyncio.to_thread(_somebody_listens):
            await asyncio.sleep(0.05)
        waiting = asyncio.create_task(wait(mike.token, 20))
        while not stream.waiters.events:
            await asyncio.sleep(0.01)
        begun = time.monotonic()
        await asyncio.to_thread(_in_thread, lambda: submit(alice))
        return await waiting, time.monotonic() - begun

    (status, _, body), seconds = run(story)

    assert (status, body) == (200, {"work": True})
    assert seconds < 5
    assert Job.objects.get().state == "queued"
    assert len(mike.poll()) == 1


def test_work_that_is_there_already_is_told_at_once(stage):
    alice, mike = stage
    submit(alice)

    status, _, body = run(lambda: wait(mike.token, 20))

    assert (status, body) == (200, {"work": True})


def test_a_wait_ends_after_its_time(stage):
    _, mike = stage
    begun = time.monotonic()

    status, headers, body = run(lambda: wait(mike.token, 0.3))

    assert (status, body) == (200, {"work": False})
    assert b"retry-after" not in headers
    assert 0.3 <= time.monotonic() - begun < 5


def test_above_the_cap_the_answer_comes_at_once_with_retry_after(stage, settings):
    _, mike = stage
    settings.STREAM_WAITERS = 0
    begun = time.monotonic()

    status, headers, body = run(lambda: wait(mike.token, 20))

    assert (status, body, headers[b"retry-after"]) == (200, {"work": False}, b"1")
    assert time.monotonic() - begun < 5


def test_fifty_wait_and_hold_no_connection(stage):
    _, mike = stage

    async def story():
        waiting = [asyncio.create_task(wait(mike.token, 20)) for _ in range(50)]
        while len(stream.waiters.events) < 50:
            await asyncio.sleep(0.02)
        held = await asyncio.to_thread(_in_thread, _connections)
        for event in stream.waiters.events:
            event.set()
        await asyncio.gather(*waiting)
        return held

    assert run(story) <= 5  # this test's own, the listener's, and what its threads have not yet given back


def test_who_may_not_wait_is_refused(stage):
    alice, _ = stage
    reader = cast.person("reader", scopes=("jobs:read",))

    for token, expected in (("nonsense", 401), (reader.token, 403)):
        status, _, body = run(lambda token=token: wait(token, 1))
        assert (status, body["status"]) == (expected, expected)
    status, _, body = run(lambda: wait(alice.token, 31))
    assert (status, body["code"]) == (422, "request.invalid")


def _in_thread(function):
    from django.db import connections

    try:
        return function()
    finally:
        connections.close_all()


def _somebody_listens() -> bool:
    return _in_thread(lambda: Waiter.objects.exists())


def _connections() -> int:
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()")
        return cursor.fetchone()[0]
