import numpy as np
import pytest

from aitbc.chain import merkle
from aitbc.core.errors import Invalid
from apps.gpu.agent import challenge
from apps.gpu.runtimes import matrices
from apps.gpu.runtimes.contract import Context

SEED, NONCE = b"\x07" * 32, b"\x21" * 32
SPEC = challenge.Spec(SEED, n=128, rounds=2, steps=3)


def answer(tmp_path, spec, nonce, *, falsify=frozenset()):
    """What a miner sends that replaces the rows in `falsify` by zeros before it commits."""
    multiplier = matrices.Multiplier(spec.seed, spec.n)
    roots, content = [], b""
    for step in range(spec.steps):
        product = multiplier.product(step, spec.rounds)
        for index in [place[1] for place in falsify if place[0] == step]:
            product[index] = 0
        leaves = matrices.leaves(step, product)
        roots.append("0x" + merkle.root(leaves).hex())
        content += b"".join(leaves)
    (tmp_path / "leaves").write_bytes(content)
    wanted = challenge.places(nonce, spec)
    return roots, challenge.open_rows(spec, wanted, Context(tmp_path, {})), wanted


def verdict(spec, roots, rows, wanted):
    return challenge.verify_rows(spec, roots=roots, rows=rows, wanted=wanted)


def test_an_honest_miner_passes(tmp_path):
    roots = challenge.commit(SPEC, Context(tmp_path, {}))["roots"]
    wanted = challenge.places(NONCE, SPEC)
    rows = challenge.open_rows(SPEC, wanted, Context(tmp_path, {}))

    assert len(rows) == 64
    assert verdict(SPEC, roots, rows, wanted) is None


def test_the_cheater_who_answers_a_times_br_passes_freivalds_but_is_caught_by_the_rows(tmp_path):
    n = 256
    spec = challenge.Spec(SEED, n=n, rounds=1, steps=1)
    a = matrices.left(SEED, 0, range(n), n).astype(np.int64)
    b = matrices.right(SEED, n).astype(np.int64)
    r = np.random.default_rng(5).integers(0, 2, n)
    # Who knows r beforehand needs only A(Br), and any matrix with C r = A(Br) passes Freivalds' test.
    forged = np.zeros((n, n), np.int64)
    forged[:, np.flatnonzero(r)[0]] = a @ (b @ r)
    assert np.array_equal(forged @ r, a @ (b @ r))
    leaves = matrices.leaves(0, forged.astype(np.int32))
    roots = ["0x" + merkle.root(leaves).hex()]
    (tmp_path / "leaves").write_bytes(b"".join(leaves))

    wanted = challenge.places(NONCE, spec)
    rows = challenge.open_rows(spec, wanted, Context(tmp_path, {}))

    assert verdict(spec, roots, rows, wanted) == (f"row {wanted[0][1]} of step 0 is not the row that was committed")


def test_a_cheater_who_computes_the_opened_rows_after_the_nonce_cannot_change_the_root(tmp_path):
    everywhere = {(step, index) for step in range(SPEC.steps) for index in range(SPEC.n)}
    roots, _, wanted = answer(tmp_path, SPEC, NONCE, falsify=everywhere)
    _, true_rows, _ = answer(tmp_path, SPEC, NONCE)

    assert verdict(SPEC, roots, true_rows, wanted) is not None


@pytest.mark.parametrize("share", [0.5, 0.1])
def test_a_share_of_false_rows_is_caught_when_one_of_them_is_opened(tmp_path, share):
    total = SPEC.steps * SPEC.n
    falsify = {divmod(number, SPEC.n) for number in range(0, total, round(1 / share))}

    roots, rows, wanted = answer(tmp_path, SPEC, NONCE, falsify=falsify)

    assert falsify & set(wanted)
    assert "not the row that was committed" in verdict(SPEC, roots, rows, wanted)


def test_false_rows_that_nobody_opens_go_unseen_which_is_why_64_are_opened(tmp_path):
    unopened = {divmod(n, SPEC.n) for n in range(SPEC.n)} - set(challenge.places(NONCE, SPEC))

    roots, rows, wanted = answer(tmp_path, SPEC, NONCE, falsify={min(unopened)})

    assert verdict(SPEC, roots, rows, wanted) is None


@pytest.mark.parametrize(
    "spoil",
    [
        lambda rows: rows[:-1],
        lambda rows: rows[::-1],
        lambda rows: [rows[0], *rows[:-1]],
        lambda rows: [{**row, "index": (row["index"] + 1) % SPEC.n} for row in rows],
        lambda rows: [],
    ],
)
def test_other_rows_than_those_asked_for_are_refused(tmp_path, spoil):
    roots, rows, wanted = answer(tmp_path, SPEC, NONCE)

    assert verdict(SPEC, roots, spoil(rows), wanted) == "the opened rows are not the ones asked for"


@pytest.mark.parametrize("proof", [None, [], "0x", [1], ["zz"], ["0x" + "00" * 32] * 7])
def test_a_malformed_proof_proves_nothing(tmp_path, proof):
    roots, rows, wanted = answer(tmp_path, SPEC, NONCE)

    assert "is not the row" in verdict(SPEC, roots, [{**rows[0], "proof": proof}, *rows[1:]], wanted)


def test_the_nonce_alone_picks_the_rows_and_each_once():
    wanted = challenge.places(NONCE, SPEC)

    assert wanted == challenge.places(NONCE, SPEC)
    assert wanted != challenge.places(b"other" * 6, SPEC)
    assert len(set(wanted)) == 64
    assert {step for step, _ in wanted} == {0, 1, 2}


def test_a_plan_asks_for_the_seconds_at_the_declared_speed():
    spec = challenge.plan(seed=SEED, kind="cpu", tflops=0.1, seconds=2)

    assert spec.operations == pytest.approx(2 * 0.1e12, rel=0.1)
    assert challenge.plan(seed=SEED, kind="cpu", tflops=1e-9, seconds=2).steps == 1


@pytest.mark.parametrize(
    "change",
    [{"n": matrices.MIN_N - 1}, {"n": 10**6}, {"steps": 0}, {"rounds": 2**30}, {"seed": "00"}, {"seed": 5}, {"n": "x"}],
)
def test_a_spec_outside_the_limits_is_refused(change):
    with pytest.raises(Invalid) as caught:
        challenge.Spec.from_json(SPEC.as_json() | change)

    assert caught.value.code == "challenge.spec"
    assert challenge.Spec.from_json(SPEC.as_json()) == SPEC
