"""Rule 34: without Redis limits are counted in process, at their share; public reads are bounded."""

import time

import pytest

from aitbc.core import db, ratelimit
from aitbc.core.errors import Unavailable
from apps.gpu.tests.steps import read
from apps.marketplace.selectors import offers


@pytest.fixture
def no_redis(settings, monkeypatch):
    settings.REDIS_URL = "redis://127.0.0.1:9/0"
    settings.RATE_LIMIT_ENABLED = True
    settings.WEB_PROCESSES = 4
    monkeypatch.setattr(ratelimit, "_local", type(ratelimit._local)())
    for name in dir(ratelimit):
        cached = getattr(ratelimit, name)
        if hasattr(cached, "cache_clear"):
            cached.cache_clear()
    yield
    for name in dir(ratelimit):
        cached = getattr(ratelimit, name)
        if hasattr(cached, "cache_clear"):
            cached.cache_clear()


def test_limits_hold_in_process_at_their_share(no_redis):
    admitted = [ratelimit.admit("key:test", 40).admitted for _ in range(30)]

    assert 10 <= sum(admitted) <= 11
    assert ratelimit.admit("key:test", 40).limit == 10


def test_writes_are_never_unlimited_without_redis(no_redis, settings, alice):
    settings.RATE_LIMIT_PER_MINUTE = 40

    statuses = [alice.post("/v1/jobs", {}).status_code for _ in range(25)]

    assert statuses.count(422) <= 11
    assert statuses[-1] == 429


def test_a_public_read_ends_after_250_ms(alice):
    assert offers.PUBLIC_READ_MS == 250
    begun = time.monotonic()

    with pytest.raises(Unavailable), db.bounded(offers.PUBLIC_READ_MS):
        db.rows("SELECT pg_sleep(5)")

    assert time.monotonic() - begun < 3


def test_a_search_is_such_a_read(alice, monkeypatch):
    asked = []
    real = db.bounded
    monkeypatch.setattr(offers.db, "bounded", lambda ms: asked.append(ms) or real(ms))

    assert read(alice.get("/v1/marketplace/offers"))["items"] == []
    assert asked == [250]
