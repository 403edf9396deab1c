"""A whole platform of the test's own, under the supervisor that `make up` uses, and its users over HTTP."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest

ROOT = Path(__file__).resolve().parents[2]
# Short times, so that a killed miner's job comes back within the test; the rules are the same.
PARAMETERS = {
    "lease_seconds": 6,
    "heartbeat_seconds": 1,
    "suspect_seconds": 4,
    "dead_seconds": 8,
    "maturing_seconds": 0,
    "challenge_seconds": 1,
    "max_attempts": 10,
    "settlement_seconds": 2,
}


@dataclass
class Platform:
    var: Path
    url: str
    owner_url: str

    def manage(self, *arguments: str, stdin: str = "") -> str:
        return manage(self.var, *arguments, stdin=stdin)

    def json(self, *arguments: str) -> Any:
        return json.loads(self.manage(*arguments, "--json").strip().splitlines()[-1])

    def sql(self, query: str, *params: Any) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.owner_url, autocommit=True) as connection:
            cursor = connection.execute(query, params)
            return cursor.fetchall() if cursor.description else []

    def key(self, email: str, role: str, scopes: str) -> str:
        self.json("create_user", "--email", email, "--role", role, "--if-missing")
        return str(self.json("create_api_key", "--user", email, "--scopes", scopes)["key"])

    def client(self, token: str) -> httpx.Client:
        headers = {"Authorization": f"Bearer {token}"}
        return httpx.Client(base_url=self.url, headers=headers, timeout=30)


def environment(var: Path) -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if k not in ("DATABASE_URL", "REDIS_URL", "CHAIN_RPC_URL")}
    return kept | {"AITBC_VAR": str(var), "DJANGO_SETTINGS_MODULE": "aitbc.settings.local", "RATE_LIMIT_ENABLED": "0"}


def manage(var: Path, *arguments: str, stdin: str = "", seconds: int = 120) -> str:
    """What a management command on the data of `var` prints; it must succeed."""
    done = subprocess.run(
        [sys.executable, "manage.py", *arguments],
        cwd=ROOT, env=environment(var), input=stdin, capture_output=True, text=True, timeout=seconds,
    )  # fmt: skip
    assert done.returncode == 0, f"{arguments}: {done.stdout}\n{done.stderr}"
    return done.stdout


def own_folder() -> Path:
    """Not pytest's own, which it keeps closed: as root, PostgreSQL runs as another user."""
    folder = Path(tempfile.mkdtemp(prefix="aitbc-faults-"))
    folder.chmod(0o755)
    return folder


@pytest.fixture
def seed() -> int:
    number = int(os.environ.get("AITBC_FAULT_SEED", time.time_ns() % 10**6))
    print(f"AITBC_FAULT_SEED={number}")  # noqa: T201 - the way to repeat this run
    return number


@pytest.fixture(scope="module")
def platform() -> Iterator[Platform]:
    var = own_folder()
    manage(var, "platform", "up", seconds=240)
    try:
        record = json.loads((var / "run" / "platform.json").read_text())
        found = Platform(var, record["url"], _owner_url(var))
        for name, value in PARAMETERS.items():
            found.sql("UPDATE accounts_parameter SET value = %s WHERE name = %s", value, name)
        yield found
    finally:
        manage(var, "platform", "down", seconds=240)
        shutil.rmtree(var)


def _owner_url(var: Path) -> str:
    script = "from aitbc import stack; print(stack.discover().database_owner_url)"
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, env=environment(var), capture_output=True, text=True, check=True
    )
    return done.stdout.strip()
