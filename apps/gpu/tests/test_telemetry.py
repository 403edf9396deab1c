"""Samples of devices: kept in order, rolled up, shown to whom they belong, dropped after their time."""

from datetime import UTC, datetime, timedelta
from urllib.parse import urlencode
from uuid import UUID

import orjson
import pytest
from django.db import connections

from aitbc.accounts import parameters
from aitbc.accounts.models import Role
from aitbc.core import clock, db
from aitbc.core.ids import uuid7
from aitbc.core.testing import cast
from apps.gpu import tasks
from apps.gpu.models import Device
from apps.gpu.tests.beats import beat
from apps.gpu.tests.steps import read, refused

pytestmark = pytest.mark.django_db
START = datetime(2026, 3, 2, 10, 0, tzinfo=UTC)


def device_of(miner) -> UUID:
    return Device.objects.get(miner_id=miner.miner_id).pk


def note(miner, moment, **figures):
    """A sample as a beat at that moment brought it."""
    sample = [{"device_id": str(device_of(miner))} | figures]
    db.rows("SELECT gpu_note_samples(%s, %s, %s::jsonb)", (miner.miner_id, moment, orjson.dumps(sample).decode()))


def shown(who, device, **query):
    query = {name: value.isoformat() if isinstance(value, datetime) else value for name, value in query.items()}
    return who.get(f"/v1/devices/{device}/telemetry?{urlencode(query)}")


def hour(miner):
    """An hour of samples, one in ten seconds: utilisation 0..359, memory 1000."""
    for n in range(360):
        note(miner, START + timedelta(seconds=10 * n), utilization=n % 100, memory_used_mb=1000 + n)


def test_posted_samples_appear_in_order_with_all_that_was_measured(mike):
    device = device_of(mike)
    full = {"utilization": 50.0, "memory_used_mb": 2048, "temperature_c": 61.5, "power_w": 300.25, "clock_mhz": 1980,
            "memory_clock_mhz": 2619, "ecc_errors": 0, "latency_ms": 12.5, "throttle": ["thermal"]}  # fmt: skip
    for sample in ({"utilization": 10.0}, full):
        response = beat(mike, telemetry=[{"device_id": str(device), **sample}])
        assert response.status_code == 200, response.content

    first, second = read(shown(mike, device, step=0))["items"]

    assert {k: v for k, v in first.items() if k != "at"} == {"utilization": 10}
    assert {k: v for k, v in second.items() if k != "at"} == full
    assert first["at"] < second["at"]
    beat(mike, telemetry=[{"device_id": str(device), "latency_ms": 38.4}])
    window = read(shown(mike, device))["items"][-1]["metrics"]["latency_ms"]
    assert window["last"] == 38.4


def test_windows_hold_least_mean_most_and_last_also_when_rolled_up(mike):
    hour(mike)
    device = device_of(mike)
    query = {"from": START, "to": START + timedelta(hours=1), "step": 300}
    raw = read(shown(mike, device, **query))
    assert len(raw["items"]) == 12
    assert raw["items"][0] == {
        "at": START.isoformat(), "samples": 30,
        "metrics": {"utilization": {"min": 0, "avg": 14.5, "max": 29, "last": 29},
                    "memory_used_mb": {"min": 1000, "avg": 1014.5, "max": 1029, "last": 1029}},
    }  # fmt: skip
    whole = read(shown(mike, device, **query | {"step": 3600}))

    while tasks.record()[1]:
        pass
    assert db.value("SELECT count(*) FROM gpu_telemetry_rollup WHERE device_id = %s", (device,)) == 13
    # What a rollup gives is what the samples gave; so does a window of several rollups.
    assert read(shown(mike, device, **query)) == raw
    assert read(shown(mike, device, **query | {"step": 3600})) == whole
    quarter = read(shown(mike, device, **query | {"step": 900}))["items"]
    assert [w["samples"] for w in quarter] == [90] * 4
    assert quarter[0]["metrics"]["memory_used_mb"] == {"min": 1000, "avg": 1044.5, "max": 1089, "last": 1089}


def test_rolling_up_again_changes_nothing_and_samples_of_now_wait(mike):
    now = clock.database_now()
    note(mike, now - timedelta(minutes=20), utilization=40)
    note(mike, now, utilization=60)
    assert tasks.record()[1] == 1 or now.minute < 20  # an hour may have ended meanwhile
    before = db.rows("SELECT * FROM gpu_telemetry_rollup ORDER BY seconds, at")

    assert tasks.record()[1] == 0
    assert db.rows("SELECT * FROM gpu_telemetry_rollup ORDER BY seconds, at") == before
    windows = read(shown(mike, device_of(mike), step=300))["items"]
    assert [w["metrics"]["utilization"]["last"] for w in windows] == [40, 60]


def test_only_the_devices_own_miner_may_post(mike, nora):
    theirs = device_of(nora)

    assert beat(mike, telemetry=[{"device_id": str(theirs), "utilization": 99.0}]).status_code == 200

    assert db.value("SELECT count(*) FROM gpu_telemetry") == 0
    assert Device.objects.get(pk=theirs).sampled_at is None


def test_a_beat_asks_the_database_no_more_than_it_did_without_history(mike, monkeypatch):
    device, asked = device_of(mike), []
    rows = db.rows
    monkeypatch.setattr(db, "rows", lambda sql, *given: asked.append(sql) or rows(sql, *given))

    beat(mike, telemetry=[{"device_id": str(device), "utilization": 1.0}])

    assert len([sql for sql in asked if "sample" in sql]) == 1


def test_owner_and_operator_may_see_a_client_only_his_own_time(mike, alice, mallory):
    hour(mike)
    device = device_of(mike)
    query = {"from": START, "to": START + timedelta(hours=1), "step": 300}
    refused(shown(mallory, device, **query), 404, "device.unknown")
    refused(shown(alice, device, **query), 404, "device.unknown")
    refused(shown(mike, uuid7(), **query), 404, "device.unknown")
    span = (START + timedelta(minutes=12), START + timedelta(minutes=33))
    assert db.value("SELECT gpu_occupy(%s, %s, %s, %s, %s)", (uuid7(), alice.id, [device], *span)) == "ok"

    seen = read(shown(alice, device, **query))["items"]

    # Whole windows inside his time: 10:15, 10:20 and 10:25; samples of exactly his time.
    assert [w["at"][11:16] for w in seen] == ["10:15", "10:20", "10:25"]
    samples = read(shown(alice, device, **query | {"step": 0}))["items"]
    assert len(samples) == 21 * 6
    refused(shown(mallory, device, **query), 404, "device.unknown")
    operator = cast.person("olga", role=Role.OPERATOR)
    assert len(read(shown(operator, device, **query))["items"]) == 12


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ({"from": START, "to": START, "step": 300}, "request.invalid"),
        ({"from": START, "to": START + timedelta(seconds=2001), "step": 1}, "telemetry.too_many"),
    ],
)
def test_a_span_that_cannot_be_answered_is_refused(mike, query, code):
    refused(shown(mike, device_of(mike), **query), 422, code)


def partitions():
    return [name for (name,) in db.rows(
        "SELECT relid::text FROM pg_partition_tree('gpu_telemetry') WHERE isleaf ORDER BY 1")]  # fmt: skip


def test_partitions_are_made_ahead_and_dropped_after_their_time(mike):
    """Through the application's own role, which may not create or drop tables by itself."""
    note(mike, START, utilization=1)  # nobody made March: it is made when it is needed
    assert "gpu_telemetry_202603" in partitions()
    now = clock.database_now()
    ahead = [f"gpu_telemetry_{(now.replace(day=1) + timedelta(days=31 * n)):%Y%m}" for n in range(3)]

    parameters.change(name="telemetry_days", value=3650, by=None)
    assert tasks.keep() == 0
    assert {"gpu_telemetry_202603", *ahead} <= set(partitions())
    parameters.change(name="telemetry_days", value=1, by=None)
    assert tasks.keep() == 1

    assert "gpu_telemetry_202603" not in partitions()
    assert set(ahead) <= set(partitions())
    assert db.value("SELECT count(*) FROM gpu_telemetry") == 0


def test_rollups_go_after_their_own_time(mike):
    hour(mike)
    while tasks.record()[1]:
        pass
    parameters.change(name="rollup_days", value=1, by=None)

    tasks.keep()

    assert db.value("SELECT count(*) FROM gpu_telemetry_rollup") == 0


def test_the_application_may_not_change_history(mike):
    with connections["default"].cursor() as cursor:
        cursor.execute("SELECT has_table_privilege(current_user, 'gpu_telemetry', 'UPDATE, DELETE')")
        assert cursor.fetchone() == (False,)
