"""kill -9 of the ledger's callers, immediate stops of its database: what was acknowledged is there, once."""

import json
import shutil
import subprocess
import sys

import pytest

from tests.faults.conftest import ROOT, environment, manage, own_folder

pytestmark = pytest.mark.timeout(1800)


@pytest.fixture
def var():
    """A database of the test's own, which it may stop."""
    folder = own_folder()
    manage(folder, "stack", "up", "--only", "postgres", seconds=300)
    try:
        manage(folder, "migrate", "-v0", seconds=300)
        yield folder
    finally:
        manage(folder, "stack", "down", seconds=300)
        shutil.rmtree(folder)


@pytest.mark.parametrize(
    ("transfers", "kills", "stops"), [(1_000, 10, 2), pytest.param(20_000, 200, 20, marks=pytest.mark.slow)]
)
def test_no_transfer_is_lost_or_doubled(var, seed, transfers, kills, stops):
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
