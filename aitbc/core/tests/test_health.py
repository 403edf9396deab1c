"""Health: live says only that this process answers; ready tries each store and names the one that fails."""

import socket
from concurrent.futures import ThreadPoolExecutor

import orjson
import pytest
from django.db import connections
from django.test import Client

from aitbc.core import health, ports
from aitbc.core.errors import Unavailable

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def _chain(monkeypatch, settings, tmp_path):
    monkeypatch.setattr(ports, "_providers", {k: v for k, v in ports._providers.items() if k != "health.chain"})
    settings.ARTIFACTS_DIR = tmp_path / "artifacts"


def ready():
    response = Client().get("/health/ready")
    return response.status_code, orjson.loads(response.content)


def failing():
    status, body = ready()
    assert (status, body["status"]) == (503, "unready")
    return {name: check["error"] for name, check in body["checks"].items() if not check["ok"]}


def closed_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_live_asks_nobody(monkeypatch, django_assert_num_queries):
    monkeypatch.setattr(health, "_checks", lambda: pytest.fail("asked"))
    with django_assert_num_queries(0):
        response = Client().get("/health/live")
    assert (response.status_code, orjson.loads(response.content)) == (200, {"status": "live"})


def test_ready_tells_what_it_found(settings):
    status, body = ready()
    assert (status, body["status"]) == (200, "ready")
    checks = body["checks"]
    assert set(checks) == {"postgresql", "redis", "storage"}
    assert all(check["ok"] and check["ms"] > 0 for check in checks.values())
    assert int(checks["postgresql"]["version"].split(".")[0]) >= 18
    assert checks["redis"]["version"][0].isdigit()
    assert list(settings.ARTIFACTS_DIR.iterdir()) == []


def test_ready_names_a_missing_redis(settings):
    settings.REDIS_URL = f"redis://127.0.0.1:{closed_port()}"
    assert failing() == {"redis": "ConnectionError"}


def test_ready_names_a_missing_database(django_db_blocker, monkeypatch):
    """On a thread of its own, whose connection is yet to be made."""
    monkeypatch.setitem(connections["default"].settings_dict, "PORT", str(closed_port()))
    monkeypatch.setitem(connections["default"].settings_dict, "HOST", "127.0.0.1")
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(failing).result() == {"postgresql": "OperationalError"}


def test_ready_names_a_storage_that_cannot_be_written(settings, tmp_path):
    (tmp_path / "file").write_text("no folder")
    settings.ARTIFACTS_DIR = tmp_path / "file" / "artifacts"
    assert failing() == {"storage": "NotADirectoryError"}


def test_ready_names_a_storage_that_returns_other_bytes(monkeypatch, settings):
    monkeypatch.setattr("pathlib.Path.read_bytes", lambda self: b"other")
    assert failing() == {"storage": "Unavailable"}
    monkeypatch.undo()


def test_ready_asks_the_chain_where_there_is_one():
    def chain():
        raise Unavailable("chain.behind", "http://user:secret@node is 90 blocks behind")

    ports.provide("health.chain", chain)
    assert failing() == {"chain": "Unavailable"}
    assert b"secret" not in Client().get("/health/ready").content
    ports._providers["health.chain"] = lambda: {"block": 7}
    assert ready()[1]["checks"]["chain"]["block"] == 7


def test_all_that_fails_is_named(settings, tmp_path):
    settings.REDIS_URL = f"redis://127.0.0.1:{closed_port()}"
    (tmp_path / "file").write_text("")
    settings.ARTIFACTS_DIR = tmp_path / "file" / "artifacts"
    assert set(failing()) == {"redis", "storage"}
