"""Rule 19: the cheater who answers A(Br) passes Freivalds' test, and is caught by the committed rows."""

import numpy as np
import pytest

from aitbc.chain import merkle
from aitbc.core.testing import cast
from apps.gpu.agent import challenge as prover
from apps.gpu.models import Challenge, Device
from apps.gpu.runtimes import matrices
from apps.gpu.runtimes.contract import Context
from apps.gpu.services import challenges
from apps.gpu.tests.steps import read
from apps.gpu.tests.test_challenge import (  # noqa: F401 - the same against the protocol's functions
    test_the_cheater_who_answers_a_times_br_passes_freivalds_but_is_caught_by_the_rows,
)
from apps.gpu.tests.test_challenges import cast_miner, slow_cpu


@pytest.fixture
def issued(db, monkeypatch):
    """One step and one round, so that the forgery below is all of the answer."""
    monkeypatch.setattr(prover, "_SIZES", {"cpu": (128, 1)})
    miner = cast.seller("mike", device=slow_cpu(tflops=1e-12))
    return miner, challenges.issue_missing(cast_miner(miner))


def test_the_a_br_cheater_is_caught_by_the_api(issued, tmp_path):
    miner, shown = issued
    spec = prover.Spec.from_json(shown["spec"])
    assert (spec.steps, spec.rounds) == (1, 1)
    a = matrices.left(spec.seed, 0, range(spec.n), spec.n).astype(np.int64)
    b = matrices.right(spec.seed, spec.n).astype(np.int64)
    r = np.random.default_rng(5).integers(0, 2, spec.n)
    forged = np.zeros((spec.n, spec.n), np.int64)
    forged[:, np.flatnonzero(r)[0]] = a @ (b @ r)
    assert np.array_equal(forged @ r, a @ (b @ r))  # Freivalds would accept it
    leaves = matrices.leaves(0, forged.astype(np.int32))
    (tmp_path / "leaves").write_bytes(b"".join(leaves))

    path = f"/v1/miners/challenges/{shown['id']}"
    drawn = read(miner.post(f"{path}/commit", {"roots": ["0x" + merkle.root(leaves).hex()]}))["rows"]
    rows = prover.open_rows(spec, drawn, Context(folder=tmp_path, artifacts={}))
    answer = read(miner.post(f"{path}/open", {"rows": rows}))

    assert len(drawn) == prover.ROWS
    assert (answer["passed"], answer["tflops"]) == (False, None)
    assert "is not the row that was committed" in answer["reason"]
    assert (Challenge.objects.get().state, Device.objects.get().verified) == ("failed", False)


def test_the_honest_answer_to_the_same_challenge_passes(issued, tmp_path):
    miner, shown = issued
    spec, context = prover.Spec.from_json(shown["spec"]), Context(folder=tmp_path, artifacts={})
    path = f"/v1/miners/challenges/{shown['id']}"

    drawn = read(miner.post(f"{path}/commit", prover.commit(spec, context)))["rows"]

    assert read(miner.post(f"{path}/open", {"rows": prover.open_rows(spec, drawn, context)}))["passed"] is True
