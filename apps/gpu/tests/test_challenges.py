"""Proof of hardware through the API, by the agent's own prover at small sizes (protocols 19-20)."""

import dataclasses
from datetime import timedelta

import pytest
from django.db.models import F

from aitbc.accounts import parameters
from aitbc.core import db as database
from aitbc.core.models import PlatformOutage
from aitbc.core.testing import cast
from aitbc.core.testing.snapshot import snapshot
from apps.gpu.agent import challenge as prover
from apps.gpu.models import Challenge, Device, Miner
from apps.gpu.runtimes.contract import Context
from apps.gpu.services import challenges
from apps.gpu.services import miners as miner_services
from apps.gpu.tests.beats import beat
from apps.gpu.tests.steps import lease_of, read, refused


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


# -- at random times, all at once --------------------------------------------------------------
@pytest.fixture
def always(monkeypatch):
    """Chance says yes."""
    monkeypatch.setattr(challenges.secrets, "randbelow", lambda most: 0)
    monkeypatch.setattr(challenges.secrets, "choice", lambda options: options[0])


def believed(*sellers):
    Device.objects.filter(miner__in=[seller.miner_id for seller in sellers]).update(verified=True, tflops=2e-7)


def end_overdue():
    database.rows("SELECT gpu_end_overdue_challenges()")


def groups():
    return {frozenset(devices) for _, devices in database.rows("SELECT * FROM gpu_challenge_groups()")}


def devices_of(*sellers):
    return frozenset(
        Device.objects.filter(miner__in=[seller.miner_id for seller in sellers]).values_list("pk", flat=True)
    )


def test_devices_are_grouped_by_owner_signing_key_and_region(small, db):
    a, b = cast.seller("a", region="eu"), cast.seller("b", region="eu")
    c, d = cast.seller("c", region="us"), cast.seller("d", region="us")
    believed(a, b, c, d)
    Miner.objects.filter(pk=b.miner_id).update(owner_id=a.user.pk)
    Miner.objects.filter(pk=d.miner_id).update(address=cast_miner(a).address)

    assert groups() == {
        devices_of(a, b),  # one owner, and one region
        devices_of(c), devices_of(d),  # owners
        devices_of(a, d),  # one signing key
        devices_of(c, d),  # a region
    }  # fmt: skip


def test_a_draw_asks_all_devices_of_an_owner_at_once_also_while_they_work(mike, nora, alice, always):
    believed(mike, nora)
    lease_of(alice, mike)

    assert challenges.draw() == 2

    first, second = Challenge.objects.order_by("issued_at")
    assert second.issued_at - first.issued_at < timedelta(seconds=2)
    assert challenges.draw() == 0  # each has its open challenge


def test_chance_decides_when_and_what_is_not_verified_is_asked_each_hour(mike, monkeypatch):
    monkeypatch.setattr(challenges.secrets, "randbelow", lambda most: int(most > 1))
    assert challenges.draw() == 1
    Challenge.objects.update(state="failed")

    assert challenges.draw() == 0
    Challenge.objects.update(issued_at=F("issued_at") - timedelta(hours=1))
    assert challenges.draw() == 1
    Challenge.objects.update(state="passed")
    believed(mike)
    assert challenges.draw() == 0


def test_a_device_that_works_meanwhile_keeps_the_speed_it_had(mike, alice, tmp_path):
    believed(mike)
    Device.objects.update(tflops=5.0)
    lease_of(alice, mike)
    challenges.ask_together([Device.objects.get().pk], proof="compute")

    _, opened = prove(mike, read(beat(mike))["challenges"][0], tmp_path)

    assert read(opened)["passed"] is True
    assert Device.objects.get().tflops == 5.0
    assert Challenge.objects.get().tflops < 5


def test_what_nobody_answers_is_a_failure_unless_the_platform_was_away(mike, issued):
    end_overdue()
    assert Challenge.objects.get().state == "issued"
    Challenge.objects.update(issued_at=F("issued_at") - timedelta(hours=1), deadline=F("deadline") - timedelta(hours=1))
    row = Challenge.objects.get()
    outage = PlatformOutage.objects.create(process="relay", began_at=row.issued_at, ended_at=row.deadline)

    end_overdue()
    assert not Challenge.objects.exists()
    assert Device.objects.get().doubt == ""

    outage.delete()
    row.save(force_insert=True)
    end_overdue()
    assert Challenge.objects.get().state == "failed"
    assert Device.objects.get().doubt == "it failed a challenge: not answered by the deadline"
