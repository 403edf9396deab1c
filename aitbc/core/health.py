"""Health: nothing in an answer is a literal. Ready names the dependency that fails."""

import time
from collections.abc import Callable
from typing import Any

import redis
from django.conf import settings
from django.db import DatabaseError
from django.http import HttpRequest, HttpResponse, JsonResponse
from redis.backoff import NoBackoff
from redis.retry import Retry

from aitbc.core import db, ports
from aitbc.core.errors import DomainError, Unavailable

Check = Callable[[], dict[str, Any]]


def live(request: HttpRequest) -> HttpResponse:
    """This process answers; says nothing about its dependencies."""
    return HttpResponse(b'{"status":"live"}', content_type="application/json")


def ready(request: HttpRequest) -> HttpResponse:
    checks = {name: _run(check) for name, check in _checks().items()}
    healthy = all(check["ok"] for check in checks.values())
    return JsonResponse({"status": "ready" if healthy else "unready", "checks": checks}, status=200 if healthy else 503)


def _checks() -> dict[str, Check]:
    checks: dict[str, Check] = {"postgresql": _postgresql, "redis": _redis, "storage": _storage}
    if chain := ports.find("health.chain"):
        checks["chain"] = chain
    return checks


def _run(check: Check) -> dict[str, Any]:
    start = time.perf_counter()
    try:
        found = {"ok": True, **check()}
    except (DomainError, DatabaseError, redis.RedisError, OSError) as error:
        found = {"ok": False, "error": type(error).__name__}
    return found | {"ms": round((time.perf_counter() - start) * 1000, 2)}


def _postgresql() -> dict[str, Any]:
    return {"version": db.value("SELECT current_setting('server_version')")}


def _redis() -> dict[str, Any]:
    once = Retry(NoBackoff(), 0)
    with redis.Redis.from_url(settings.REDIS_URL, socket_timeout=1, socket_connect_timeout=1, retry=once) as client:
        return {"version": client.info("server")["redis_version"]}


def _storage() -> dict[str, Any]:
    """Write, read back and remove a file where artifacts go."""
    folder = settings.ARTIFACTS_DIR
    folder.mkdir(parents=True, exist_ok=True)
    probe = folder / f".probe-{time.time_ns()}"
    try:
        probe.write_bytes(b"probe")
        if probe.read_bytes() != b"probe":
            raise Unavailable("storage.corrupt", "the object store returned other bytes than were written")
    finally:
        probe.unlink(missing_ok=True)
    return {"folder_writable": True}
