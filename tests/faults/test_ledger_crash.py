"""kill -9 of the ledger's callers, immediate stops of its database: what was acknowledged is there, once."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from tests.faults.conftest import ROOT, environment

pytestmark = pytest.mark.timeout(1800)


@pytest.fixture
def var():
    """A database of the test's own, which it may stop."""
    folder = Path(tempfile.mkdtemp(prefix="aitbc-storm-"))
    folder.chmod(0o755)
    manage(folder, "stack", "up", "--only", "postgres")
    try:
        manage(folder, "migrate", "-v0")
        yield folder
    finally:
        manage(folder, "stack", "down")
        shutil.rmtree(folder)


def manage(folder: Path, *arguments: str) -> None:
    done = subprocess.run(
        [sys.executable, "manage.py", *arguments],
        cwd=ROOT, env=environment(folder), capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("transfers", "kills", "stops"), [(1_000, 10, 2), pytest.param(20_000, 200, 20, marks=pytest.mark.slow)]
)
def test_no_transfer_is_lost_or_doubled(var, transfers, kills, stops):
    seed = int(os.environ.get("AITBC_FAULT_SEED", time.time_ns() % 10**6))
    print(f"AITBC_FAULT_SEED={seed}")  # noqa: T201 - the way to repeat this run
    numbers = {"--seed": seed, "--transfers": transfers, "--kills": kills, "--stops": stops}
    arguments = [str(part) for pair in numbers.items() for part in pair]
    done = subprocess.run(
        [sys.executable, "-m", "tests.faults.ledger_storm", *arguments],
        cwd=ROOT, env=environment(var), capture_output=True, text=True, timeout=1500,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    print(found)  # noqa: T201 - evidence that the faults happened
    outages = found.pop("outages")
    assert found == {
        "kills": kills,
        "acknowledged": transfers,
        "there": transfers,
        "all": transfers,
        "balances": True,
        "findings": [],
    }
    assert len(outages) == stops
    assert max(outages) < 30
