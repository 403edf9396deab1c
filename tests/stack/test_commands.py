"""`manage.py stack`, as a person types it."""

import json
import subprocess
import sys

from aitbc.stack.paths import REPOSITORY


def manage(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "manage.py", *arguments], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )


def test_stack_starts_shows_and_stops_the_named_servers(var):
    up = manage("stack", "up", "--only", "redis", "--json")
    shown = manage("stack", "status", "--only", "redis")
    down = manage("stack", "down")
    after = manage("stack", "status", "--json")

    [service] = json.loads(up.stdout)["services"]
    assert (up.returncode, service["name"], service["healthy"]) == (0, "redis", True)
    assert (shown.returncode, shown.stdout.split()[:2]) == (0, ["redis", "healthy"])
    assert down.returncode == 0
    assert after.returncode == 3
    assert [service["running"] for service in json.loads(after.stdout)["services"]] == [False, False, False]


def test_an_unknown_server_is_refused_by_name(var):
    refused = manage("stack", "up", "--only", "mysql")

    assert refused.returncode == 1
    assert "unknown service mysql; there are postgres, redis, anvil" in refused.stderr
    assert not (var.run / "postgres.pid").exists()


def test_destroy_deletes_the_servers_data_and_keeps_the_rest(var):
    manage("stack", "up", "--only", "redis")
    (var.root / "artifacts").mkdir()
    kept = var.keys / "db_encryption.key"
    kept.write_bytes(bytes(32))

    assert manage("stack", "destroy").returncode == 0

    assert not (var.root / "redis").exists()
    assert not (var.keys / "redis.password").exists()
    assert (var.root / "artifacts").is_dir()
    assert kept.exists()  # and so does the chain database that it opens


def test_platform_status_of_one_that_is_down(var):
    shown = manage("platform", "status", "--json")

    assert (shown.returncode, json.loads(shown.stdout)) == (0, {"processes": {}})
