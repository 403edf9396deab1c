"""Miners that really cheat, against the real services; each is caught by the test of its name."""

import hashlib
import time
from datetime import timedelta

import numpy as np
import pytest
from django.db.models import F

from aitbc.chain import merkle
from aitbc.core import clock
from aitbc.core.models import OutboxEvent
from aitbc.core.testing import cast
from aitbc.core.testing.snapshot import snapshot
from apps.gpu.agent import challenge as prover
from apps.gpu.models import Challenge, Device, Job, Miner
from apps.gpu.runtimes import matrices
from apps.gpu.runtimes.contract import Context
from apps.gpu.services import challenges
from apps.gpu.tests.beats import beat
from apps.gpu.tests.steps import lease_of, read, refused, start, submit


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(prover, "_SIZES", {"cpu": (64, 2), "cuda": (64, 2), "rocm": (64, 2)})


def device(number=0, **changes):
    facts = {"uuid": f"GPU-{number}", "kind": "cuda", "model": "A card nobody knows", "memory_mb": 1024, "tflops": 2e-7}
    return cast.DeviceClaim(**facts | changes)


def spec_of(shown):
    return prover.Spec.from_json(shown["spec"])


def commit(miner, shown, made):
    return read(miner.post(f"/v1/miners/challenges/{shown['id']}/commit", {"roots": made["roots"]}))


def open_rows(miner, shown, rows):
    return read(miner.post(f"/v1/miners/challenges/{shown['id']}/open", {"rows": rows}))


def prove(miner, shown, folder, *, spec=None):
    folder.mkdir(exist_ok=True)
    context, spec = Context(folder, {}), spec or spec_of(shown)
    drawn = commit(miner, shown, prover.commit(spec, context))["rows"]
    return open_rows(miner, shown, prover.open_rows(spec, drawn, context)) if drawn else {"passed": False}


def pass_seconds(seconds):
    """For every open challenge, as far as the platform's clock can tell."""
    back = timedelta(seconds=seconds)
    Challenge.objects.filter(state__in=Challenge.OPEN).update(
        issued_at=F("issued_at") - back, deadline=F("deadline") - back
    )


def test_claims_eight_gpus_and_has_one(small, db, tmp_path):
    """All eight are asked at once; one card answers them one after the other, for the twenty seconds' work each."""
    cheater = cast.seller("eight", device=device())
    cast.register_again(cheater, devices=[device(n) for n in range(8)])
    challenges.issue_missing(Miner.objects.get())
    shown = read(beat(cheater))["challenges"]
    assert len(shown) == 8
    issued = [row.issued_at for row in Challenge.objects.order_by("issued_at")]
    assert issued[-1] - issued[0] < timedelta(seconds=2)

    answers = []
    for asked in shown:
        pass_seconds(20)
        answers.append(prove(cheater, asked, tmp_path / asked["device"]))

    # 3 x 20 s and 10 s of grace: three are in time, and show a third of the speed claimed
    assert [answer["passed"] for answer in answers] == [True] * 3 + [False] * 5
    assert Device.objects.filter(verified=True).count() == 3
    speeds = list(Device.objects.filter(verified=True).order_by("tflops").values_list("tflops", flat=True))
    assert speeds[0] < speeds[-1] / 2.5
    assert set(Device.objects.filter(verified=False).values_list("doubt", flat=True)) == {
        "it failed a challenge: the roots came after the deadline"
    }


def test_eight_real_gpus_answer_in_parallel(small, db, tmp_path):
    honest = cast.seller("eight", device=device())
    cast.register_again(honest, devices=[device(n) for n in range(8)])
    challenges.issue_missing(Miner.objects.get())
    shown = read(beat(honest))["challenges"]
    pass_seconds(20)

    assert all(prove(honest, asked, tmp_path / asked["device"])["passed"] for asked in shown)


def test_holding_beats_back_does_not_serialise_the_challenges_of_two_miners(small, db):
    """One card behind two miners: whoever is silent until the first is done, hears of a clock that runs already."""
    first, second = cast.seller("a", device=device(1)), cast.seller("b", device=device(2))
    challenges.ask_together(list(Device.objects.values_list("pk", flat=True)), proof="compute")
    read(beat(first))
    pass_seconds(60)
    read(beat(second))

    late = Challenge.objects.get(miner=second.miner_id)
    assert clock.database_now() - late.issued_at > timedelta(seconds=44)


def test_reports_a_better_model_than_it_has(small, db, tmp_path):
    """Its work is true, and a T4's: true rows at the speed of another card."""
    cheater = cast.seller("faker", device=device(model="NVIDIA H100 80GB HBM3", memory_mb=81_559, tflops=60.0))
    row = challenges._issue(Miner.objects.get(), Device.objects.get())
    row.n, row.rounds, row.steps = 64, 2, 1
    row.save()
    shown = read(beat(cheater))["challenge"]
    operations = 2 * 64**3 * 2
    Challenge.objects.update(issued_at=clock.database_now() - timedelta(seconds=operations / 8.1e12))
    answer = prove(cheater, shown, tmp_path)

    assert answer["passed"] is False
    assert "not like the H100 SXM5 that it claims to be" in answer["reason"]
    assert Device.objects.get().verified is False
    event = OutboxEvent.objects.get(event="gpu.device_doubted")
    assert event.payload["doubt"] == answer["reason"]


def test_answers_challenges_from_a_cache(small, db, tmp_path):
    """What was right once is another matrix now: each challenge has a seed of its own, also the second of a device."""
    cheater = cast.seller("cache", device=device())
    first = challenges.issue_missing(Miner.objects.get())
    assert prove(cheater, first, tmp_path / "first")["passed"] is True
    kept, context = spec_of(first), Context(tmp_path / "first", {})
    challenges.ask_together([Device.objects.get().pk], proof="compute")
    (second,) = read(beat(cheater))["challenges"]
    assert spec_of(second).seed != kept.seed

    drawn = commit(cheater, second, prover.commit(kept, context))["rows"]
    answer = open_rows(cheater, second, prover.open_rows(kept, drawn, context))

    assert answer["passed"] is False
    assert "is not the row that was committed" in answer["reason"]
    assert Device.objects.get().verified is False


def test_answers_with_a_times_br_instead_of_the_product(db, monkeypatch, tmp_path):
    monkeypatch.setattr(prover, "_SIZES", {"cuda": (128, 1)})
    cheater = cast.seller("shortcut", device=device(tflops=1e-12))
    shown = challenges.issue_missing(Miner.objects.get())
    spec = spec_of(shown)
    a = matrices.left(spec.seed, 0, range(spec.n), spec.n).astype(np.int64)
    b = matrices.right(spec.seed, spec.n).astype(np.int64)
    r = np.random.default_rng(5).integers(0, 2, spec.n)
    forged = np.zeros((spec.n, spec.n), np.int64)
    forged[:, np.flatnonzero(r)[0]] = a @ (b @ r)
    assert np.array_equal(forged @ r, a @ (b @ r))  # Freivalds would accept it
    leaves = matrices.leaves(0, forged.astype(np.int32))
    (tmp_path / "leaves").write_bytes(b"".join(leaves))

    drawn = commit(cheater, shown, {"roots": ["0x" + merkle.root(leaves).hex()]})["rows"]
    answer = open_rows(cheater, shown, prover.open_rows(spec, drawn, Context(tmp_path, {})))

    assert (answer["passed"], answer["tflops"]) == (False, None)
    assert "is not the row that was committed" in answer["reason"]


@pytest.mark.parametrize("altered", [True, False])
def test_alters_outputs(alice, mike, altered):
    """Its client, or anybody he shows it to, asks for a row under the root that the miner signed."""
    job = {"n": 64, "seed": 7, "dtype": "float32"}
    lease = lease_of(alice, mike, input=job)
    product = matrices.Multiplier((7).to_bytes(32, "big"), 64).product(0)
    if altered:
        product[3] += 1
    root = "0x" + merkle.root(matrices.leaves(0, product)).hex()
    output = {"n": 64, "seconds": 0.1, "tflops": 0.1, "root": root}
    assert mike.deliver(lease, output).status_code == 200

    answer = alice.get(f"/v1/jobs/{lease['id']}/rows?index=3")

    if altered:
        refused(answer, 409, "rows.mismatch")
    else:
        assert read(answer)["row"] == product[3].tolist()


def test_bills_overlapping_seconds(alice):
    """Two slots, twelve jobs held two at a time, every one claimed for an hour: paid is the wall time of two slots."""
    cheater, held = cast.seller("double", concurrency=2), []
    begun = clock.database_now()
    for _ in range(6):
        submit(alice)
        held += cheater.poll(max_jobs=64)
        assert len(held) <= 2  # no third lease beside the two
        if len(held) == 2:
            time.sleep(0.02)
            cheater.deliver(held.pop(0), cast.MATMUL_OUTPUT, claimed_ms=3_600_000)
    wall_ms = (clock.database_now() - begun).total_seconds() * 1000

    billed = sum(Job.objects.filter(state="completed").values_list("units_ms", flat=True))

    assert Job.objects.filter(state="completed").count() == 5
    assert 0 < billed <= 2 * wall_ms


def test_bills_the_time_before_the_start_that_it_reported_twice(alice, mike):
    """A second report of the start does not move the first, and a claim above the platform's clock lowers nothing."""
    lease = lease_of(alice, mike)
    start(mike, lease)
    first = Job.objects.get().started_at
    start(mike, lease)

    assert Job.objects.get().started_at == first
    assert mike.deliver(lease, cast.MATMUL_OUTPUT, claimed_ms=10**9).status_code == 200
    assert Job.objects.get().units_ms < 5000


def test_reads_anothers_artifact_by_its_hash(alice, mike, mallory, artifacts_dir):
    content = b"weights that took a year to train"
    sha256 = hashlib.sha256(content).hexdigest()
    assert alice.put(f"/v1/artifacts/{sha256}", content).status_code == 201
    before = snapshot()

    for thief in (mike, mallory):
        refused(thief.get(f"/v1/artifacts/{sha256}"), 404, "artifact.unknown")
    body = cast.job_body(kind="onnx.infer", input={"model": sha256, "inputs": {}})
    assert mallory.post("/v1/jobs", body).status_code in (404, 422)

    assert snapshot() == before
    own = alice.get(f"/v1/artifacts/{sha256}")
    assert own.getvalue() == content
    own.close()


def test_leaves_in_the_face_of_a_challenge_to_stay_believed(small, db, tmp_path):
    cheater = cast.seller("runner", device=device())
    first = challenges.issue_missing(Miner.objects.get())
    prove(cheater, first, tmp_path)
    assert Device.objects.get().verified
    challenges.ask_together([Device.objects.get().pk], proof="compute")

    cheater.delete("/v1/miners/me")

    assert Device.objects.get().verified is False
    cast.register_again(cheater, devices=[device()])
    assert challenges.issue_missing(Miner.objects.get()) is not None
