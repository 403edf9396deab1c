"""The score from the signed log: what counts, the formula against one of our own, and the log's proofs."""

import hashlib
import json
from datetime import UTC, datetime, timedelta
from io import StringIO
from math import sqrt

import pytest
from django.core.management import CommandError, call_command
from django.db import transaction
from django.db.models import F

from aitbc.accounts.models import AuditEvent, Parameter
from aitbc.chain import merkle, signing
from aitbc.core import clock, db
from aitbc.core.models import OutboxEvent, PlatformOutage
from aitbc.core.testing.cast import MATMUL_OUTPUT
from apps.gpu.models import Attempt, Heartbeat, HeartbeatRoot, Job, Miner, ReliabilityDay
from apps.gpu.services import reliability
from apps.gpu.tests.beats import beat
from apps.gpu.tests.logs import beats_at
from apps.gpu.tests.steps import fail, lease_of, pass_time, read, refused, start

HOUR, DAY = 3600, 86_400


def days_of(miner, **window):
    until = clock.database_now()
    found = db.rows(
        "SELECT day, up, down, completed, failed FROM gpu_reliability_days(%s, '2020-01-01', %s)",
        (miner.miner_id, until),
    )
    return [tuple(row[1:]) for row in sorted(found)]


def totals(miner):
    """(up, down, completed, failed); times to ten seconds, since the test itself takes a moment."""
    sums = [sum(column) for column in zip(*days_of(miner), strict=True)]
    return (*(round(seconds, -1) for seconds in sums[:2]), *sums[2:])


def published(days, half_life=14, as_of=None):
    """docs/reliability.md, by hand."""
    as_of = as_of or datetime.now(UTC).date()
    up = down = completed = failed = 0.0
    for day in days:
        w = 0.5 ** ((as_of - datetime.fromisoformat(day["day"]).date()).days / half_life)
        up, down = up + w * day["up_seconds"] / 3600, down + w * day["down_seconds"] / 3600
        completed, failed = completed + w * day["completed"], failed + w * day["failed"]
    a1, b1, a2, b2 = sqrt(2) + up, 2 - sqrt(2) + down, sqrt(2) + completed, 2 - sqrt(2) + failed
    score = a1 / (a1 + b1) * a2 / (a2 + b2)
    spread = sqrt(score * (a1 + 1) / (a1 + b1 + 1) * (a2 + 1) / (a2 + b2 + 1) - score**2)
    return score, max(0, score - 1.96 * spread), min(1, score + 1.96 * spread)


def score(up=0, down=0, completed=0, failed=0):
    return db.rows("SELECT * FROM gpu_reliability_score(%s, %s, %s, %s)", (up, down, completed, failed))[0]


def finished(alice, mike, seconds_ago=120):
    lease = lease_of(alice, mike)
    assert mike.deliver(lease, MATMUL_OUTPUT).status_code == 200
    back = timedelta(seconds=seconds_ago)
    Job.objects.filter(pk=lease["id"]).update(finished_at=F("finished_at") - back)


# -- the formula -------------------------------------------------------------------------------
def test_a_new_miner_is_neutral_with_the_widest_interval(db):
    assert score() == (pytest.approx(0.5), 0, 1)


def test_more_of_the_same_narrows_the_interval_and_failures_lower_the_score(db):
    few, many, failing = score(up=10, completed=10), score(up=1000, completed=1000), score(up=1000, failed=30)

    assert few[0] < many[0] < 1
    assert many[2] - many[1] < (few[2] - few[1]) / 5
    assert failing[2] < 0.2


def test_it_is_the_product_so_presence_does_not_make_up_for_failures(db):
    assert score(up=10_000, completed=1, failed=99)[0] < 0.05
    assert score(up=1, down=99, completed=10_000)[0] < 0.05


# -- what counts -------------------------------------------------------------------------------
def test_signed_minutes_count_and_unsigned_beats_vouch_for_nothing(mike):
    beats_at(mike, 600, 540, 480)
    beats_at(mike, 420, 400, signed=False)

    assert totals(mike) == (120, 0, 0, 0)


def test_a_gap_counts_less_what_a_signature_vouches_for_once_the_chain_goes_on(mike):
    beats_at(mike, 5000)
    assert days_of(mike) == []  # silence at the end of the log is not acknowledged yet

    beats_at(mike, 1400)

    assert totals(mike) == (90, 3510, 0, 0)


def test_after_a_farewell_silence_counts_for_nobody(mike):
    beats_at(mike, 7300, 7260)
    Miner.objects.update(last_seen_at=F("last_seen_at"))
    Heartbeat.objects.filter(sequence=2).update(received_at=clock.database_now())
    assert mike.delete("/v1/miners/me").status_code == 200
    Heartbeat.objects.filter(sequence=2).update(received_at=clock.database_now() - timedelta(seconds=7260))
    beats_at(mike, 120, 60)

    assert [row.farewell for row in Heartbeat.objects.order_by("sequence")] == [False, True, False, False]
    assert totals(mike) == (100, 0, 0, 0)


def test_a_farewell_after_the_silence_began_is_none(mike):
    beats_at(mike, 4000)

    assert mike.delete("/v1/miners/me").status_code == 200

    assert not Heartbeat.objects.get().farewell
    beats_at(mike, 400)
    assert totals(mike) == (90, 3510, 0, 0)


def test_an_outage_of_the_platform_is_nobodys_absence(mike):
    beats_at(mike, 5000, 1400)
    now = clock.database_now()
    for process in ("relay", "another"):
        PlatformOutage.objects.create(
            process=process, began_at=now - timedelta(seconds=4000), ended_at=now - timedelta(seconds=1000)
        )

    assert totals(mike) == (90, 3510 - 2600, 0, 0)


def test_completed_and_failed_leases_count_and_a_clients_fault_does_not(alice, mike, nora):
    finished(alice, mike)
    lease = lease_of(alice, mike)
    start(mike, lease)
    assert fail(mike, lease, "runtime.crashed").status_code == 200
    (again,) = nora.poll()
    start(nora, again)
    fail(nora, again, "runtime.invalid_model")

    faults = dict(Attempt.objects.values_list("miner_id", "fault"))
    assert faults[mike.miner_id] == "provider"
    assert totals(mike) == (0, 0, 1, 1)
    assert faults[nora.miner_id] == "client"
    assert days_of(nora) == []


def test_an_attempt_that_ran_into_an_outage_is_left_out(alice, mike):
    lease = lease_of(alice, mike)
    start(mike, lease)
    pass_time(lease["id"], 30)
    fail(mike, lease, "runtime.crashed")
    assert totals(mike) == (0, 0, 0, 1)

    now = clock.database_now()
    PlatformOutage.objects.create(
        process="relay", began_at=now - timedelta(seconds=20), ended_at=now - timedelta(seconds=2)
    )

    assert days_of(mike) == []


# -- scores ------------------------------------------------------------------------------------
def test_the_stored_score_is_the_published_formula_over_the_published_days(alice, mike, nora):
    beats_at(mike, *range(3 * DAY + 4 * HOUR, 3 * DAY + 2 * HOUR, -60 * 20))
    beats_at(mike, 2 * HOUR, HOUR, 120)
    finished(alice, mike)

    assert reliability.refresh() == 1

    shown = read(mike.get(f"/v1/miners/{mike.miner_id}/reliability"))
    expected = published(shown["days"])
    assert (shown["score"], shown["low"], shown["high"]) == pytest.approx(expected)
    row = Miner.objects.get(pk=mike.miner_id)
    assert (row.reliability, row.reliability_low, row.reliability_high) == pytest.approx(expected)
    hours = sum(day["up_seconds"] + day["down_seconds"] for day in shown["days"]) // HOUR
    assert row.reliability_samples == shown["samples"] == hours + 1
    assert OutboxEvent.objects.filter(event="gpu.miner_rated").count() == 1
    fresh = Miner.objects.get(pk=nora.miner_id)
    assert (fresh.reliability, fresh.reliability_low, fresh.reliability_samples) == (None, None, 0)
    new = read(mike.get(f"/v1/miners/{nora.miner_id}/reliability"))
    assert (new["score"], new["low"], new["high"], new["days"]) == (pytest.approx(0.5), 0, 1, [])


def test_a_second_refresh_moves_nothing_and_tells_nobody(alice, mike):
    finished(alice, mike)
    assert reliability.refresh() == 1

    assert reliability.refresh() == 0
    assert OutboxEvent.objects.filter(event="gpu.miner_rated").count() == 1


def test_old_history_fades_by_half_each_half_life(alice, mike):
    today = clock.database_now().date()
    ReliabilityDay.objects.create(miner_id=mike.miner_id, day=today - timedelta(days=14), completed=100, failed=100)
    Miner.objects.update(reliability_at=clock.database_now())
    reliability.refresh()

    assert Miner.objects.get().reliability == pytest.approx(score(completed=50, failed=50)[0])
    Parameter.objects.filter(name="reliability_half_life_days").update(value=7)
    reliability.refresh()
    assert Miner.objects.get().reliability == pytest.approx(score(completed=25, failed=25)[0])


# -- the log -----------------------------------------------------------------------------------
def verify(**options):
    out = StringIO()
    call_command("recompute_reliability", verify=True, json=True, stdout=out, **options)
    return json.loads(out.getvalue())


def test_a_sound_log_and_score_verify(alice, mike, nora):
    beats_at(mike, 2 * HOUR, HOUR, 600, 540)
    finished(alice, nora)
    reliability.refresh()

    report = verify()

    assert (report["ok"], report["miners"]) == (True, 2)
    assert all(found["stored"] == pytest.approx(found["computed"]) for found in report["findings"])


@pytest.mark.parametrize(
    ("spoil", "fault"),
    [
        (lambda beats, miner: miner.update(reliability=0.99), "the stored score is not the one of the log"),
        (lambda beats, miner: beats.filter(sequence=2).delete(), "heartbeat 3 does not follow heartbeat 1"),
        (lambda beats, miner: beats.filter(sequence=4).delete(), "the log ends with heartbeat 3"),
        (lambda beats, miner: beats.filter(sequence=2).update(body=bytes(32)), "heartbeat 2: its head is not the hash"),
        (lambda beats, miner: beats.filter(sequence=2).update(body=None), "heartbeat 2: its body was not kept"),
        (lambda beats, miner: beats.filter(sequence=2).update(signer=bytes(20)), "heartbeat 2: the signature is not"),
        (lambda beats, miner: beats.filter(sequence=2).update(signature="0x" + "1" * 130), "heartbeat 2: the sig"),
        (lambda beats, miner: beats.filter(sequence=2).update(received_at=F("received_at") + timedelta(seconds=1)),
         "are not those that were sealed"),
    ],
)  # fmt: skip
def test_whoever_was_given_another_score_or_log_is_named(alice, mike, nora, spoil, fault):
    old = 3 * DAY
    beats_at(mike, old + 2 * HOUR, old + HOUR, 600, 540)
    finished(alice, nora)
    reliability.refresh()

    spoil(Heartbeat.objects.filter(miner=mike.miner_id), Miner.objects.filter(pk=mike.miner_id))

    with pytest.raises(CommandError) as caught:
        verify()
    assert f"miner {mike.miner_id}: " in str(caught.value)
    assert fault in str(caught.value)
    assert str(nora.miner_id) not in str(caught.value)
    assert verify(miner=nora.miner_id)["ok"]


def test_a_stranger_can_check_a_day_by_the_api_alone(mike, nora):
    now = clock.database_now()
    day = (now - timedelta(days=3)).date()
    noon = (now - datetime(day.year, day.month, day.day, 12, tzinfo=UTC)).total_seconds()
    beats_at(mike, noon + 120, noon + 60, noon)
    beats_at(nora, noon + 60)
    reliability.refresh()
    path = f"/v1/miners/{mike.miner_id}/heartbeats?day={day}"

    first = read(mike.get(f"{path}&limit=2"))
    second = read(mike.get(f"{path}&limit=2&cursor={first['next']}"))

    items = first["items"] + second["items"]
    assert second["next"] is None
    assert items == read(mike.get(path))["items"]
    assert [signing.recover(_digest(i["head"]), i["signature"]) for i in items] == [
        signing.address_of(mike.private_key)
    ] * len(items)
    lines = "\n".join(
        f"{i['sequence']}|{i['head']}|{_microseconds(i['received_at'])}|{i['signature']}|{int(i['farewell'])}"
        for i in items
    )
    leaves = {}
    for seller in (mike, nora):
        days = read(mike.get(f"/v1/miners/{seller.miner_id}/reliability"))["days"]
        (shown,) = [d for d in days if d["day"] == str(day)]
        digest = bytes.fromhex(shown["digest"][2:])
        leaf = b"aitbc.heartbeats" + seller.miner_id.bytes + str(day).encode() + digest
        leaves[seller.miner_id] = hashlib.sha256(leaf).digest()
        root = shown["root"]
        if seller is mike:
            assert digest == hashlib.sha256(lines.encode()).digest()
    assert "0x" + merkle.root([leaves[key] for key in sorted(leaves)]).hex() == root
    event = AuditEvent.objects.get(action="gpu.heartbeats_sealed", subject=f"day:{day}")
    assert event.after == {"root": root, "miners": 2}


def _digest(head):
    from django.conf import settings

    from apps.gpu import statements

    return signing.keccak(b"\x19\x01" + statements.domain(settings.CHAIN_ID).separator + bytes.fromhex(head[2:]))


def _microseconds(text):
    moment = datetime.fromisoformat(text) - datetime(1970, 1, 1, tzinfo=UTC)
    return moment // timedelta(microseconds=1)


def test_a_day_is_sealed_once_and_only_when_it_is_over(mike):
    beats_at(mike, 60)
    assert reliability.seal_day() is None

    Heartbeat.objects.update(received_at=F("received_at") - timedelta(days=2))
    assert reliability.seal_day().miners == 1
    assert reliability.seal_day() is None
    assert HeartbeatRoot.objects.count() == 1


def test_signed_minutes_alone_and_strange_cursors(mike):
    beats_at(mike, 0)
    beat(mike)
    day = Heartbeat.objects.earliest("sequence").received_at.date()
    path = f"/v1/miners/{mike.miner_id}/heartbeats?day="

    assert {i["signature"] is not None for i in read(mike.get(f"{path}{day}&signed=true"))["items"]} <= {True}
    refused(mike.get(f"{path}{day}&cursor=nonsense"), 422, "request.cursor")
    refused(mike.get(f"{path}never"), 422, "request.invalid")
    nobody = "/v1/miners/00000000-0000-7000-8000-000000000000"
    refused(mike.get(f"{nobody}/reliability"), 404, "miner.unknown")
    refused(mike.get(f"{nobody}/heartbeats?day={day}"), 404, "miner.unknown")


def test_miners_are_ranked_with_the_parts_of_their_score(alice, mike, nora):
    finished(alice, mike)
    reliability.refresh()
    Miner.objects.filter(pk=mike.miner_id).update(reliability=0.9)

    first, second = read(alice.get("/v1/miners/ranking"))["items"]

    assert [first["miner_id"], second["miner_id"]] == [str(mike.miner_id), str(nora.miner_id)]
    parts = first["explanation"]
    assert first["score"] == pytest.approx(sum(p["weight"] * p["points"] for p in parts.values()), abs=0.002)
    assert [parts[name]["points"] for name in ("reliability", "reputation")] == [90, 70]
    # 4 GB, one free slot: .4 * 16 + .3 * 25 + .3 * 100; nothing known of its use: .6 * 50 + .4 * 10 * 1/48 jobs an hour
    assert parts["capacity"]["points"] == pytest.approx(43.9)
    assert parts["performance"]["points"] == pytest.approx(30 + 0.4 * 10 / 48, abs=0.001)
    assert second["explanation"]["reliability"]["points"] == 50
    page = read(alice.get("/v1/miners/ranking?limit=1"))
    assert [i["place"] for i in read(alice.get(f"/v1/miners/ranking?cursor={page['next']}"))["items"]] == [2]


def test_an_outage_is_kept_when_the_relay_ticks_again(db):
    from aitbc.core import ticks
    from aitbc.core.models import PlatformTick

    ticks.tick()
    ticks.tick()
    assert not PlatformOutage.objects.exists()
    PlatformTick.objects.update(at=F("at") - timedelta(seconds=100))
    with transaction.atomic():
        ticks.tick()

    outage = PlatformOutage.objects.get()
    assert (outage.ended_at - outage.began_at).total_seconds() == pytest.approx(100, abs=5)
