"""The committed bytecode is what the committed sources give, anywhere."""

import json
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2] / "contracts"
NAMES = ("AIT", "DepositForwarder", "Settlement")


@pytest.fixture(scope="module")
def rebuilt(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("build")
    subprocess.run(["node", ROOT / "build.mjs", "--out", folder], check=True, cwd="/", timeout=110)
    return folder


@pytest.mark.parametrize("name", NAMES)
def test_recompiling_gives_the_committed_bytes(rebuilt, name):
    assert (rebuilt / f"{name}.json").read_bytes() == (ROOT / "build" / f"{name}.json").read_bytes()


@pytest.mark.parametrize("name", NAMES)
def test_contracts_fit_the_limit_of_the_evm(name):
    built = json.loads((ROOT / "build" / f"{name}.json").read_text())
    assert 0 < built["deployed_bytes"] <= 24_576  # EIP-170
    assert built["compiler"].startswith("0.8.37")
