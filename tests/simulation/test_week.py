"""Half a thousand miners and two thousand clients for a week: nothing is let twice, and every coin is accounted for."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SHORT, WEEK = (8, 40, 4), (500, 2000, 168)  # miners, clients, hours


@pytest.fixture
def folder():
    made = Path(tempfile.mkdtemp(prefix="aitbc-simulation-"))
    made.chmod(0o755)  # the database server may run as another user
    yield made
    shutil.rmtree(made)


@pytest.mark.parametrize("size", [SHORT, pytest.param(WEEK, marks=pytest.mark.slow)])
def test_a_market_lives_for_days_and_every_order_and_coin_is_accounted_for(folder, size):
    seed = os.environ.get("AITBC_SIMULATION_SEED", str(time.time_ns() % 10**6))
    print(f"AITBC_SIMULATION_SEED={seed}")  # noqa: T201 - the way to repeat this run
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("DATABASE_", "REDIS_"))}
    environment |= {"AITBC_VAR": str(folder / "var"), "DJANGO_SETTINGS_MODULE": "aitbc.settings.local"}
    done = subprocess.run(
        [sys.executable, "-m", "tests.simulation.world", str(folder), "tests.simulation.week", seed, *map(str, size)],
        cwd=ROOT, env=environment, capture_output=True, text=True, timeout=4 * 3600,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    report = json.loads(done.stdout.strip().splitlines()[-1])

    assert {rule: found for rule, found in report["problems"].items() if found} == {}
    lived = report["counts"]
    assert {"orders", "completed", "searches", "jobs"} <= set(lived), lived
    if size == WEEK:
        happened = {"missed", "failed", "evicted", "credited", "compensated", "disputes", "moved", "quote_expired"}
        assert happened <= set(lived), lived
        assert lived["credits above nothing"] > 0
        assert lived["compensations above nothing"] > 0
