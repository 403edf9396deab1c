"""What fits a device, how many slots are needed, whether the GPUs are well: from what was measured."""

import contextlib
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import orjson
import pytest
from kombu.exceptions import OperationalError

from aitbc.accounts import parameters
from aitbc.core import db
from aitbc.core.ids import uuid7
from aitbc.core.testing import cast
from apps.gpu import tasks, worker
from apps.gpu.agent.sandbox import Sandbox
from apps.gpu.models import Device, Miner
from apps.gpu.services import health
from apps.gpu.tests.beats import beat
from apps.gpu.tests.steps import lease_of, read, refused, start, submit

pytestmark = pytest.mark.django_db
GIB = 1024


def card(mike, memory_mb=24 * GIB) -> Device:
    Device.objects.filter(miner_id=mike.miner_id).update(memory_mb=memory_mb, kind="cuda")
    return Device.objects.get(miner_id=mike.miner_id)


def fit(who, device, **changes):
    body = {"parameters_b": 7, "dtype": "bf16", "context": 4096, "batch": 1} | changes
    return who.post(f"/v1/devices/{device.pk}/fit", body)


# -- what fits -----------------------------------------------------------------------------------
def test_the_need_is_the_published_formula(alice, mike):
    """Weights 2 bytes a parameter; cache 2 * 32 * 4096 * 2 bytes a token; 1 GiB and a twentieth above that."""
    found = read(fit(alice, card(mike), layers=32, width=4096))

    weights, cache = 7e9 * 2, 2 * 32 * 4096 * 2 * 4096
    assert found["types"]["bf16"]["weights_mb"] == -(-weights // 2**20)
    assert found["cache_mb"] == cache // 2**20 == 2048
    assert found["types"]["bf16"]["needs_mb"] == -(-(weights * 1.05 + cache + 2**30) // 2**20)
    assert (found["fits"], found["free_mb"], found["measured_at"]) == (True, 24 * GIB, None)
    assert found["largest_batch"] == int((24 * 2**30 - weights * 1.05 - 2**30) // cache) == 4
    # Layers and width that are not given are estimated of 12 * layers * (128 * layers)^2 parameters.
    assert read(fit(alice, card(mike)))["layers"] == 33


def test_a_model_that_is_too_big_is_refused_with_the_numbers_and_what_would_fit(alice, mike):
    found = read(fit(alice, card(mike), parameters_b=30))

    assert (found["fits"], found["best"], found["largest_batch"]) == (False, "int4", 0)
    assert found["reason"].startswith("bf16 with 4096 tokens in each of 1 sequences needs ")
    assert "24576 MiB are free" in found["reason"]
    assert [name for name, t in found["types"].items() if t["fits"]] == ["int4"]
    assert read(fit(alice, card(mike), parameters_b=500))["best"] is None


def test_the_advice_follows_the_free_memory_of_the_last_beat(alice, mike):
    device = card(mike)
    assert read(fit(alice, device))["best"] == "bf16"

    beat(mike, telemetry=[{"device_id": str(device.pk), "memory_used_mb": 14 * GIB}])
    busy = read(fit(alice, device))

    assert (busy["fits"], busy["best"], busy["free_mb"]) == (False, "q5", 10 * GIB)
    assert busy["measured_at"] is not None
    # What was measured long ago says nothing of now.
    Device.objects.update(sampled_at=datetime(2026, 1, 1, tzinfo=UTC))
    assert read(fit(alice, device))["free_mb"] == 24 * GIB


def test_only_a_device_that_is_there_is_judged(alice, mike):
    device = card(mike)
    Device.objects.update(active=False)

    refused(fit(alice, device), 404, "device.unknown")
    refused(alice.post(f"/v1/devices/{uuid7()}/fit", {"parameters_b": 7, "context": 1}), 404, "device.unknown")
    refused(fit(alice, device, dtype="fp3"), 422, "request.invalid")
    refused(fit(alice, device, context=0), 422, "request.invalid")


# -- capacity ------------------------------------------------------------------------------------
NOON = datetime(2026, 3, 2, 12, 0, tzinfo=UTC)


def record(minute, *, queued=0, slots=10, busy=6, arrived=0, served=0, run=0.0):
    db.rows(
        "INSERT INTO gpu_load VALUES ('bench.matmul', %s, 60, %s, %s, %s, %s, %s, %s)",
        (NOON + timedelta(minutes=minute), queued, slots, busy, arrived, served, run),
    )


def capacity(minute):
    document = orjson.loads(db.value("SELECT gpu_capacity(%s)", (NOON + timedelta(minutes=minute),)))
    return {kind["kind"]: kind for kind in document["kinds"]}.get("bench.matmul")


def decisions():
    rows = db.rows("SELECT at, action, slots, advised FROM gpu_scaling('bench.matmul', '-infinity', 'infinity')")
    return [((at - NOON).total_seconds() / 60, *rest) for at, *rest in rows]


def test_advice_follows_thresholds_and_cooldown(db):
    """A recorded load -> exactly these decisions, however often it is asked."""
    load = [6, 8, 9, 10, 10, 10, 10, 10, 6, 3, 3, 3, 3, 3, 3]
    for minute, busy in enumerate(load):
        record(minute, busy=busy)

    # 9 of 10 is above 85 %: 12 slots bring it to 75 %; five minutes of pause; 100 %: 14; then 30 %: a fifth fewer.
    expected = [(2, "up", 10, 12), (7, "up", 10, 14), (12, "down", 10, 8)]
    assert decisions() == expected
    assert decisions() == expected
    parameters.change(name="scale_cooldown_seconds", value=0, by=None)
    assert [minute for minute, *_ in decisions()] == [2, 3, 4, 5, 6, 7, 9, 10, 11, 12, 13, 14]
    parameters.change(name="scale_up_percent", value=95, by=None)
    assert [minute for minute, action, *_ in decisions() if action == "up"] == [3, 4, 5, 6, 7]


@pytest.mark.parametrize(
    ("seen", "expected"),
    [
        ({"slots": 2, "busy": 1, "queued": 11}, ("up", 2, 3)),  # more than five for each slot
        ({"slots": 2, "busy": 1, "queued": 10}, None),
        ({"slots": 0, "busy": 0, "queued": 1}, ("up", 0, 1)),
        ({"slots": 0, "busy": 0, "queued": 23}, ("up", 0, 5)),
        ({"slots": 10, "busy": 3, "queued": 1}, None),  # idle, but something waits
        ({"slots": 1, "busy": 0}, None),  # the last slot stays
        ({"slots": 3, "busy": 1}, ("down", 3, 2)),
        ({"slots": 10, "busy": 4}, None),  # at the threshold is not below it
    ],
)
def test_each_threshold_decides_exactly_at_its_value(db, seen, expected):
    record(0, **seen)

    assert [tuple(decision) for _, *decision in decisions()] == ([expected] if expected else [])


def test_rates_are_those_of_the_recorded_load_and_too_little_of_it_is_said(db):
    assert capacity(0) is None
    for minute in range(4):
        record(minute, queued=12, busy=6, arrived=9, served=6, run=30.0)
    assert capacity(3)["advice"] == {"action": "none", "reason": "insufficient data: 4 of 5 records"}
    record(4, queued=12, busy=6, arrived=9, served=6, run=30.0)

    found = capacity(4)

    assert (found["arrivals_per_minute"], found["served_per_minute"], found["mean_seconds"]) == (9, 6, 5)
    assert (found["wait_seconds"], found["utilization"]) == (120, 60)
    assert found["advice"]["action"] == "hold"
    record(5, queued=200)
    assert found != capacity(5)
    assert capacity(5)["advice"] == {
        "action": "up", "slots": 10, "advised": 40, "at": (NOON + timedelta(minutes=5)).isoformat(),
        "reason": "200 jobs are queued for 10 slots, more than 5 for each",
    }  # fmt: skip
    assert capacity(20) is None


def test_the_load_is_recorded_as_it_is(alice, mike, nora):
    lease = lease_of(alice, mike)
    start(mike, lease)
    submit(alice)
    submit(alice, constraints={"region": "mars"})
    assert tasks.record() == [1, 0]

    document = read(alice.get("/v1/gpu/capacity"))

    (found,) = document["kinds"]
    assert {k: found[k] for k in ("kind", "queued", "slots", "busy", "utilization", "arrivals_per_minute")} == {
        "kind": "bench.matmul", "queued": 2, "slots": 2, "busy": 1, "utilization": 50, "arrivals_per_minute": 3,
    }  # fmt: skip
    assert [(c["region"], c["queued"]) for c in sorted(document["classes"], key=lambda c: c["region"] or "")] == [
        (None, 1), ("mars", 1)]  # fmt: skip
    Miner.objects.update(state="dead")
    tasks.record()
    assert read(alice.get("/v1/gpu/capacity"))["kinds"][0]["slots"] == 0


# -- health --------------------------------------------------------------------------------------
def send(monkeypatch, sender):
    monkeypatch.setattr(health, "current_app", SimpleNamespace(send_task=sender))


def test_the_probe_goes_to_the_workers_that_have_the_devices_from_any_thread(in_threads):
    from aitbc.celery import app

    assert app.amqp.router.route({}, tasks.probe.name)["queue"].name == "gpu"
    assert in_threads(lambda _: health.current_app.main, 2) == ["aitbc", "aitbc"]


def test_without_a_broker_the_question_is_refused_and_not_lost_in_words(alice, monkeypatch):
    def away(name, **options):
        raise OperationalError("connection refused")

    send(monkeypatch, away)
    refused(alice.get("/v1/gpu/health?deep=1"), 503, "broker.unavailable")


@pytest.fixture
def own_worker(db, monkeypatch):
    """A first-party worker whose sandbox is real; the task runs where it is sent from."""
    mike = cast.seller("mike")
    Miner.objects.update(first_party=True)
    with contextlib.closing(Sandbox(tier="process")) as sandbox:
        monkeypatch.setattr(worker, "agent", lambda: None)
        monkeypatch.setattr(worker, "_running", [(None, sandbox)])
        runs = []
        send(monkeypatch, lambda name, **_: runs.append(name) or tasks.probe())
        yield mike, runs


def test_deep_health_really_runs_every_kind_once_a_minute(alice, own_worker):
    _, runs = own_worker

    found = read(alice.get("/v1/gpu/health?deep=1"))

    assert set(found["probe"]["kinds"]) >= {"bench.matmul", "onnx.infer", "vision.ocr"}
    assert all(kind["ok"] and kind["milliseconds"] > 0 for kind in found["probe"]["kinds"].values())
    assert found["status"] == "degraded"  # it works, and there is no GPU
    assert found["probe"]["tier"] == "process"
    assert "/etc" not in str(found)  # what the sandbox's own test reached is not for everybody
    assert "no GPU: the platform's own workers have processors only" in found["faults"]
    assert found["kinds"] == {"bench.matmul": {"miners": 1, "slots": 1}}
    assert read(alice.get("/v1/gpu/health?deep=1"))["probed_at"] == found["probed_at"]
    assert runs == [tasks.probe.name]


def test_a_kind_that_gives_a_wrong_output_is_a_fault(alice, own_worker, monkeypatch):
    mike, _ = own_worker
    card(mike)
    report = {"ok": False, "absent": {}, "kinds": {"vision.ocr": {"ok": False, "reason": "the output is wrong"}}}
    monkeypatch.setattr(worker, "probe", lambda: report)

    found = read(alice.get("/v1/gpu/health?deep=1"))

    assert (found["status"], found["faults"]) == ("degraded", ["vision.ocr: the output is wrong"])
    assert read(alice.get("/v1/gpu/health"))["status"] == "ok"  # without a look inside


def test_without_a_worker_or_its_answer_nothing_is_claimed(alice, mike, monkeypatch):
    monkeypatch.setattr(health, "WAIT_SECONDS", 0.3)
    sent = []
    send(monkeypatch, lambda name, **options: sent.append((name, options)))

    found = read(alice.get("/v1/gpu/health?deep=1"))

    assert (found["status"], found["probe"]) == ("unavailable", None)
    assert found["faults"] == ["the platform has no worker of its own here", "no worker answered the probe in time"]
    assert sent == [("gpu.probe", {"expires": 0.3})]
    assert read(alice.get("/v1/gpu/health?deep=1"))["status"] == "unavailable"
    assert len(sent) == 1  # the first question still stands


def test_a_worker_that_fell_silent_is_no_health(alice, own_worker):
    mike, _ = own_worker
    card(mike)
    Miner.objects.update(state="suspect")

    found = read(alice.get("/v1/gpu/health"))

    assert (found["status"], found["faults"]) == ("unavailable", ["1 of 1 devices are not online"])
