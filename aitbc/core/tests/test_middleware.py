"""What is refused before a view: bodies, media types, floods; limits are shared through Redis."""

import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import orjson
import pytest
import redis
from django.conf import settings as live
from django.test import Client

from aitbc.core import ratelimit
from aitbc.core.ids import uuid7

URLS = pytest.mark.urls("aitbc.core.tests.urls")
pytestmark = URLS


def refusal(response):
    body = orjson.loads(response.content)
    assert response["Content-Type"] == "application/problem+json"
    assert body["status"] == response.status_code
    return response.status_code, body["code"]


def post(path, data=b"{}", content_type="application/json", **extra):
    return Client().generic("POST", path, data, content_type=content_type, **extra)


# -- bodies ------------------------------------------------------------------------------------


def test_a_body_may_be_as_large_as_allowed_and_not_a_byte_larger(settings):
    settings.MAX_BODY_BYTES = 100
    assert post("/v1/echo", b"x" * 100).content == b"x" * 100
    assert refusal(post("/v1/echo", b"x" * 101)) == (413, "request.too_large")
    assert refusal(post("/api/body", b"x" * 101)) == (413, "request.too_large")


def test_an_artifact_has_a_limit_of_its_own(settings):
    settings.MAX_BODY_BYTES, settings.MAX_ARTIFACT_BYTES = 10, 100
    assert post("/v1/artifacts/echo", b"x" * 100, "application/octet-stream").status_code == 200
    assert refusal(post("/v1/artifacts/echo", b"x" * 101, "application/octet-stream")) == (413, "request.too_large")


@pytest.mark.parametrize("length", ["-1", "many", "1e3", "99999999999999999999", "\uff11\uff12"])
def test_a_senseless_length_is_refused(length):
    assert refusal(post("/v1/echo", CONTENT_LENGTH=length)) == (413, "request.too_large")


def test_a_body_of_unannounced_length_is_refused_and_not_taken_for_an_empty_one():
    found = post("/v1/echo", b"", HTTP_TRANSFER_ENCODING="chunked", CONTENT_LENGTH="")
    assert refusal(found) == (411, "request.length_required")


@pytest.mark.parametrize(
    "kind", ["application/json", "application/json; charset=utf-8", "application/merge-patch+json"]
)
def test_json_is_taken(kind):
    assert post("/v1/echo", content_type=kind).status_code == 200


@pytest.mark.parametrize(
    "kind", ["text/plain", "application/x-www-form-urlencoded", "application/xjson", "multipart/form-data", ""]
)
def test_anything_else_is_an_unsupported_medium(kind):
    assert refusal(post("/v1/echo", content_type=kind)) == (415, "request.media_type")


def test_no_body_needs_no_media_type():
    assert post("/v1/echo", b"", "").status_code == 200
    assert Client().delete("/v1/echo").status_code == 200


@pytest.mark.parametrize("path", ["/v1/echo%00", "/v1/echo?q=%00", "/v1/echo?q=a%00b"])
def test_a_null_byte_in_the_address_is_refused(path):
    assert refusal(Client().get(path)) == (422, "request.null_byte")


def test_pages_for_people_are_not_held_to_the_apis_rules(settings):
    settings.MAX_BODY_BYTES = 1
    assert post("/nothing", b"long", "text/plain").status_code == 404


# -- rate limits -------------------------------------------------------------------------------


@pytest.fixture
def limits(settings, monkeypatch):
    """Limits of three per minute by address and five by key, at a moment well inside a minute."""
    settings.RATE_LIMIT_ENABLED = True
    settings.RATE_LIMIT_ANONYMOUS_PER_MINUTE, settings.RATE_LIMIT_PER_MINUTE = 3, 5
    monkeypatch.setattr(ratelimit, "_away_until", 0.0)
    monkeypatch.setattr(ratelimit, "_local", ratelimit._Local())
    clock = Clock()
    monkeypatch.setattr(ratelimit.time, "time", lambda: clock.now)
    return clock


class Clock:
    def __init__(self):
        self.now = (time.time() // 60) * 60 + 20.0


def address():
    """One that nobody used before: the counts in Redis outlive a test."""
    return f"10.{uuid7().hex[-6:]}"


def get(who, **extra):
    return Client(REMOTE_ADDR=who).get("/v1/echo", **extra)


def statuses(who, n, **extra):
    return [get(who, **extra).status_code for _ in range(n)]


def test_over_the_limit_is_429_and_says_when_to_come_back(limits):
    who = address()
    assert statuses(who, 3) == [200] * 3
    response = get(who)
    assert refusal(response) == (429, "rate_limit.exceeded")
    # 40 s until the minute ends, then 20 more until the three of it weigh two: room for one.
    assert response["Retry-After"] == "60"
    assert response["RateLimit-Policy"] == '"default";q=3;w=60'
    assert response["RateLimit"] == '"default";r=0;t=60'


def test_every_answer_says_what_is_left(limits):
    who = address()
    assert [get(who)["RateLimit"] for _ in range(3)] == [f'"default";r={left};t=40' for left in (2, 1, 0)]


def test_who_waits_as_told_is_admitted_and_who_knocks_meanwhile_loses_nothing(limits):
    who = address()
    statuses(who, 3)
    wait = int(get(who)["Retry-After"])
    assert statuses(who, 20) == [429] * 20
    limits.now += wait - 1
    assert statuses(who, 1) == [429]
    limits.now += 1
    assert statuses(who, 2) == [200, 429]


def test_the_window_slides(limits):
    who = address()
    statuses(who, 3)
    limits.now += 40 + 30  # half of the last minute still counts: one and a half
    assert statuses(who, 2) == [200, 429]
    limits.now += 120
    assert statuses(who, 4) == [200, 200, 200, 429]


def test_each_address_and_each_key_counts_for_itself(limits):
    one, other = address(), address()
    assert statuses(one, 4) == [200, 200, 200, 429]
    assert statuses(other, 1) == [200]
    key = {"HTTP_AUTHORIZATION": f"Bearer ait_{uuid7().hex[-12:]}_secret"}
    assert statuses(one, 6, **key) == [200] * 5 + [429]


def test_only_the_apis_are_limited(limits):
    who = address()
    found = [Client(REMOTE_ADDR=who).get("/page").status_code for _ in range(10)]
    assert found == [404] * 10


def test_guessed_keys_are_counted_against_the_address(limits):
    who = address()

    def guess():
        token = f"Bearer ait_{uuid7().hex[-12:]}_{'x' * 43}"
        return Client(REMOTE_ADDR=who).get("/v1/raise/nobody", HTTP_AUTHORIZATION=token)

    from aitbc.core.errors import Unauthenticated
    from aitbc.core.tests import urls

    urls.RAISED["nobody"] = Unauthenticated("auth.invalid_key", "unknown")
    assert [guess().status_code for _ in range(5)] == [401, 401, 401, 429, 429]
    assert statuses(who, 1) == [429]


def test_threads_share_one_count(limits):
    who = address()
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: ratelimit.admit(who, 50).admitted, range(200)))
    assert sum(found) == 50


def test_processes_share_one_count_through_redis(limits, monkeypatch):
    who = address()
    assert statuses(who, 2) == [200, 200]
    monkeypatch.setattr(ratelimit, "_local", ratelimit._Local())  # as another process starts: it knows nothing
    ratelimit._script.cache_clear()
    assert statuses(who, 2) == [200, 429]
    with redis.Redis.from_url(live.REDIS_URL) as client:
        (key,) = client.keys(f"rl:ip:{who}:*")
        assert int(client.get(key)) == 3
        assert 60 < client.ttl(key) <= 120


def test_without_redis_a_process_counts_at_its_share(limits, settings, caplog):
    settings.REDIS_URL, settings.WEB_PROCESSES = f"redis://127.0.0.1:{_closed_port()}", 2
    settings.RATE_LIMIT_ANONYMOUS_PER_MINUTE = 6
    who = address()
    response = get(who)
    assert response["RateLimit-Policy"] == '"default";q=3;w=60'
    assert statuses(who, 3) == [200, 200, 429]
    warnings = [r for r in caplog.records if "Redis does not answer" in str(r.msg)]
    assert len(warnings) == 1


def test_a_redis_that_hangs_delays_one_request_by_a_quarter_of_a_second(limits, settings, monkeypatch):
    monkeypatch.setattr(ratelimit, "_AWAY_SECONDS", 60.0)
    with _Silence() as server:
        settings.REDIS_URL = server.url
        start = time.monotonic()
        ratelimit.admit(address(), 5)
        assert 0.2 < time.monotonic() - start < 10
        statuses(address(), 5)
        assert server.accepted == 1


def test_redis_is_used_again_when_it_is_back(limits, settings, monkeypatch):
    good = settings.REDIS_URL
    settings.REDIS_URL = f"redis://127.0.0.1:{_closed_port()}"
    who = address()
    statuses(who, 1)
    settings.REDIS_URL = good
    monkeypatch.setattr(ratelimit, "_away_until", 0.0)  # the second has passed
    assert statuses(who, 4) == [200, 200, 200, 429]


def test_the_memory_of_addresses_is_bounded(limits):
    local = ratelimit._Local()
    for i in range(10_001):
        local.count(f"ip:{i}", 5, 100, 1.0)
    local.count("ip:last", 5, 104, 1.0)
    assert set(local.counts) == {("ip:last", 104)}


def _closed_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class _Silence:
    """A server that takes connections and never says a word."""

    def __enter__(self):
        self.accepted, self.kept = 0, []
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"redis://127.0.0.1:{self.listener.getsockname()[1]}"
        self.thread = threading.Thread(target=self._accept)
        self.thread.start()
        return self

    def _accept(self):
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            self.accepted += 1
            self.kept.append(connection)

    def __exit__(self, *_):
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        self.thread.join()
        for connection in self.kept:
            connection.close()
