"""Proof of hardware through the API, by the agent's own prover at small sizes (protocols 19-20)."""

import dataclasses
from datetime import timedelta

import pytest
from django.db.models import F

from aitbc.accounts import parameters
from aitbc.core.testing import cast
from aitbc.core.testing.snapshot import snapshot
from apps.gpu.agent import challenge as prover
from apps.gpu.models import Challenge, Device
from apps.gpu.runtimes.contract import Context
from apps.gpu.services import challenges
from apps.gpu.services import miners as miner_services
from apps.gpu.tests.beats import beat
from apps.gpu.tests.steps import read, refused


@pytest.fixture
def small(monkeypatch):
    """The same protocol on 64 x 64 matrices."""
    monkeypatch.setattr(prover, "_SIZES", {"cpu": (64, 2), "cuda": (64, 2), "rocm": (64, 2)})


def slow_cpu(**changes) -> cast.DeviceClaim:
    """Declares so little that four steps are its twenty seconds' work."""
    facts = {"uuid": "CPU-slow", "kind": "cpu", "model": "Test CPU", "memory_mb": 4096, "tflops": 2e-7}
    return cast.DeviceClaim(**facts | changes)


@pytest.fixture
def mike(small, db):
    return cast.seller("mike", device=slow_cpu())


@pytest.fixture
def issued(mike):
    """The miner's open challenge, as a heartbeat shows it."""
    challenges.issue_missing(cast_miner(mike))
    return read(beat(mike))["challenge"]


def cast_miner(seller):
    from apps.gpu.models import Miner

    return Miner.objects.get(pk=seller.miner_id)


def prove(miner, shown, folder, *, spec=None):
    """Commit and open as the agent does; `spec` is what a cheater computes instead."""
    context = Context(folder=folder, artifacts={})
    made = spec or prover.Spec.from_json(shown["spec"])
    committed = miner.post(f"/v1/miners/challenges/{shown['id']}/commit", prover.commit(made, context))
    assert committed.status_code == 200, committed.content
    rows = prover.open_rows(made, read(committed)["rows"], context)
    return read(committed), miner.post(f"/v1/miners/challenges/{shown['id']}/open", {"rows": rows})


def test_an_honest_device_is_verified_with_what_it_delivered(mike, issued, tmp_path):
    spec = prover.Spec.from_json(issued["spec"])

    committed, opened = prove(mike, issued, tmp_path)

    assert len(committed["rows"]) == min(prover.ROWS, spec.steps * spec.n)
    answer = read(opened)
    assert (answer["passed"], answer["reason"]) == (True, None)
    device, row = Device.objects.get(), Challenge.objects.get()
    assert (device.verified, device.tflops) == (True, answer["tflops"])
    seconds = (row.committed_at - row.issued_at).total_seconds()
    assert answer["tflops"] == pytest.approx(spec.operations / seconds / 1e12)
    assert row.state == "passed"
    assert read(beat(mike))["challenge"] is None
    assert read(mike.get("/v1/miners/me"))["devices"][0]["verified"] is True


def test_registration_says_what_to_prove(small, db):
    """The challenge comes with the answer to the registration, one for each device never verified."""
    seller = cast.seller("mike", device=slow_cpu())
    shown = challenges.issue_missing(cast_miner(seller))

    assert shown == challenges.issue_missing(cast_miner(seller))
    assert Challenge.objects.count() == 1
    assert shown["device"] == Device.objects.get().uuid


def test_another_matrix_than_the_one_asked_for_is_refused(mike, issued, tmp_path):
    asked = prover.Spec.from_json(issued["spec"])
    cheat = dataclasses.replace(asked, seed=bytes(32))

    _, opened = prove(mike, issued, tmp_path, spec=cheat)

    answer = read(opened)
    assert (answer["passed"], answer["tflops"]) == (False, None)
    assert "is not the row that was committed" in answer["reason"]
    assert Device.objects.get().verified is False
    assert Challenge.objects.get().state == "failed"


def test_less_work_than_asked_for_is_refused(mike, issued, tmp_path):
    """One round of multiplications instead of two: half the time, and every row is wrong."""
    asked = prover.Spec.from_json(issued["spec"])

    _, opened = prove(mike, issued, tmp_path, spec=dataclasses.replace(asked, rounds=1))

    assert read(opened)["passed"] is False


def test_rows_that_were_not_asked_for_are_refused(mike, issued, tmp_path):
    context = Context(folder=tmp_path, artifacts={})
    spec = prover.Spec.from_json(issued["spec"])
    mike.post(f"/v1/miners/challenges/{issued['id']}/commit", prover.commit(spec, context))
    rows = prover.open_rows(spec, [(0, 0)] * prover.ROWS, context)

    answer = read(mike.post(f"/v1/miners/challenges/{issued['id']}/open", {"rows": rows}))

    assert (answer["passed"], answer["reason"]) == (False, "the opened rows are not the ones asked for")


@pytest.mark.parametrize("rows", [[{}], [{"step": 0}], [{"step": {}, "index": [], "proof": "0x"}]])
def test_rows_without_sense_fail_and_nothing_else_happens(mike, issued, tmp_path, rows):
    context = Context(folder=tmp_path, artifacts={})
    spec = prover.Spec.from_json(issued["spec"])
    mike.post(f"/v1/miners/challenges/{issued['id']}/commit", prover.commit(spec, context))

    assert read(mike.post(f"/v1/miners/challenges/{issued['id']}/open", {"rows": rows}))["passed"] is False


@pytest.mark.parametrize("proof", [None, 5, "0x00", [5], ["zz"], ["0x"], [[]], {}])
def test_a_proof_that_proves_nothing_fails(mike, issued, tmp_path, proof):
    context = Context(folder=tmp_path, artifacts={})
    spec = prover.Spec.from_json(issued["spec"])
    made = prover.commit(spec, context)
    committed = read(mike.post(f"/v1/miners/challenges/{issued['id']}/commit", made))
    rows = prover.open_rows(spec, committed["rows"], context)
    rows[-1]["proof"] = proof

    answer = read(mike.post(f"/v1/miners/challenges/{issued['id']}/open", {"rows": rows}))

    assert answer["passed"] is False


@pytest.mark.parametrize("rows", [[], [1], "rows", [[0, 0]]])
def test_rows_of_another_shape_are_refused(mike, issued, rows):
    before = snapshot()

    refused(mike.post(f"/v1/miners/challenges/{issued['id']}/open", {"rows": rows}), 422, "request.invalid")

    assert snapshot() == before


def test_a_commitment_after_the_deadline_fails(mike, issued, tmp_path):
    late = timedelta(seconds=parameters.get("challenge_seconds") * challenges.SLACK + challenges.GRACE_SECONDS + 1)
    Challenge.objects.update(issued_at=F("issued_at") - late, deadline=F("deadline") - late)
    context = Context(folder=tmp_path, artifacts={})
    made = prover.commit(prover.Spec.from_json(issued["spec"]), context)

    answer = read(mike.post(f"/v1/miners/challenges/{issued['id']}/commit", made))

    assert answer["rows"] == []
    row = Challenge.objects.get()
    assert (row.state, row.reason) == ("failed", "the roots came after the deadline")
    refused(mike.post(f"/v1/miners/challenges/{issued['id']}/open", {"rows": [{}]}), 409, "challenge.state")
    assert Device.objects.get().verified is False


def test_the_rows_are_drawn_only_after_the_commitment(mike, issued, tmp_path):
    """Knowing them before would make computing the others unnecessary."""
    assert Challenge.objects.get().nonce == ""
    assert "nonce" not in str(issued)
    refused(mike.post(f"/v1/miners/challenges/{issued['id']}/open", {"rows": [{}]}), 409, "challenge.state")
    context = Context(folder=tmp_path, artifacts={})
    made = prover.commit(prover.Spec.from_json(issued["spec"]), context)

    answer = read(mike.post(f"/v1/miners/challenges/{issued['id']}/commit", made))

    spec = prover.Spec.from_json(issued["spec"])
    expected = prover.places(bytes.fromhex(answer["nonce"][2:]), spec)
    assert [tuple(row) for row in answer["rows"]] == expected


@pytest.mark.parametrize("step", ["commit", "open"])
def test_a_step_cannot_be_taken_twice(mike, issued, tmp_path, step):
    prove(mike, issued, tmp_path)
    before = snapshot()
    body = {"commit": {"roots": ["0x" + "00" * 32]}, "open": {"rows": [{}]}}[step]

    refused(mike.post(f"/v1/miners/challenges/{issued['id']}/{step}", body), 409, "challenge.state")

    assert snapshot() == before


@pytest.mark.parametrize("roots", [[], ["0x00"], [5], ["0x" + "0" * 64] * 10_001])
def test_roots_of_another_shape_are_refused(mike, issued, roots):
    refused(mike.post(f"/v1/miners/challenges/{issued['id']}/commit", {"roots": roots}), 422, "request.invalid")


def test_a_commitment_has_one_root_for_each_step(mike, issued):
    before = snapshot()
    roots = ["0x" + "00" * 32] * (issued["spec"]["steps"] + 1)

    refused(mike.post(f"/v1/miners/challenges/{issued['id']}/commit", {"roots": roots}), 409, "challenge.roots")

    assert snapshot() == before


def test_another_miners_challenge_is_not_found(mike, issued, nora):
    before = snapshot()

    for step, body in (("commit", {"roots": ["0x" + "00" * 32]}), ("open", {"rows": [{}]})):
        refused(nora.post(f"/v1/miners/challenges/{issued['id']}/{step}", body), 404, "challenge.unknown")

    assert snapshot() == before


def test_a_device_that_changed_must_prove_itself_again(mike, issued, tmp_path):
    prove(mike, issued, tmp_path)
    device = Device.objects.get()
    assert device.verified

    cast.register_again(mike, devices=[slow_cpu(memory_mb=8192)])

    device.refresh_from_db()
    assert (device.verified, device.tflops, device.memory_mb) == (False, None, 8192)
    assert challenges.issue_missing(cast_miner(mike)) is not None


def test_a_challenge_that_was_never_answered_gives_way_to_a_new_one(mike, issued):
    late = timedelta(seconds=parameters.get("challenge_seconds") * challenges.SLACK + challenges.GRACE_SECONDS + 1)
    Challenge.objects.update(issued_at=F("issued_at") - late, deadline=F("deadline") - late)

    shown = challenges.issue_missing(cast_miner(mike))

    assert str(shown["id"]) != issued["id"]
    old, new = Challenge.objects.order_by("id")
    assert (old.state, old.reason, new.state) == ("failed", "not answered by the deadline", "issued")


def test_who_signs_off_before_the_answer_gets_a_fresh_challenge_on_return(mike, issued):
    miner_services.sign_off(key=mike.principal.key_id)

    assert Challenge.objects.get().state == "failed"
    assert read(beat(mike))["challenge"] is None
