"""Every figure of the dashboard equals what the rows say, and what cannot be known is said to be unknown."""

import re
from datetime import timedelta

import pytest
import redis
from django.db import connections, transaction
from django.utils import timezone

from aitbc.chain.models import NetworkStatus
from aitbc.core import db
from aitbc.core.models import DeadTask, OutboxEvent, PlatformTick
from aitbc.core.testing.cast import AIT
from apps.gpu.models import Device, Job, Miner
from apps.gpu.selectors import overview as work
from apps.trading.models import Payment, ReceiptLeaf, ReserveCheck, SettlementBatch

pytestmark = pytest.mark.django_db(databases=["default", "chain"])
BROKEN = "redis://127.0.0.1:1/0"


@pytest.fixture
def broker(settings):
    """The test's own Redis database, so that no worker's queue is read or touched."""
    settings.CELERY_BROKER_URL = re.sub(r"/\d*$", "/13", settings.REDIS_URL)
    with redis.Redis.from_url(settings.CELERY_BROKER_URL) as client:
        client.flushdb()
        yield client
        client.flushdb()


def figures(console):
    """{name: text} of everything that the page marks as a figure."""
    html = console.get("/admin/").content.decode()
    marked = re.findall(r'<\w+ data-figure="([^"]+)">(.*?)</dd>', html, re.DOTALL)
    tiles = re.findall(r'<strong[^>]* id="([^"]+)">(.*?)</strong>', html, re.DOTALL)
    return {name: re.sub(r"<[^>]+>", "", text).strip() for name, text in (*marked, *tiles)}


def test_jobs_queue_and_miners_are_counted_exactly(console, scene, broker):
    Job.objects.filter(pk=scene.completed[1]).update(created_at=timezone.now() - timedelta(hours=25))
    shown = figures(console)

    assert {state: shown[f"jobs-{state}"] for state in Job.State.values} == {
        **dict.fromkeys(("leased", "running", "failed", "canceled", "expired"), "0"),
        "queued": "4",
        "completed": "1",
    }
    assert (shown["queue-total"], shown["queue-bench.matmul"], shown["queue-vision.ocr"]) == ("4", "2", "2")
    assert (shown["miners-online"], shown["miners-suspended"]) == ("2", "0")
    Miner.objects.filter(pk=scene.mike.miner_id).update(state="suspended")
    assert figures(console)["miners-suspended"] == "1"


def test_the_age_of_the_oldest_waiting_job_is_shown(console, scene, broker):
    Job.objects.filter(pk=scene.queued[0]).update(created_at=timezone.now() - timedelta(hours=2, minutes=10))

    assert "the oldest for 2 h 10 min" in console.get("/admin/").content.decode()


def test_money_equals_the_ledger(console, scene, broker):
    paid = Payment.objects.filter(job__in=scene.completed)
    shown = figures(console)

    assert shown["escrow"] == "0.0400000000000072"  # four waiting jobs of at most 0.01, and two auctions
    assert shown["maturing"] == exact(sum(p.released for p in paid))
    assert shown["fees"] == exact(sum(p.fee for p in paid))
    assert sum(p.fee for p in paid) > 0


def exact(units):
    return f"{units // AIT}.{units % AIT:018d}".rstrip("0").rstrip(".")


def test_settlement_reserves_and_chain_are_the_latest(console, scene, broker):
    shown = figures(console)

    assert (shown["unbatched"], shown["settlement-state"]) == ("0", "final")
    assert (shown["reserves-chain"], shown["reserves-verdict"]) == ("3 AIT", "✗ differ")
    assert (shown["height"], shown["final-height"], shown["intents"]) == ("60", "55", "0")
    assert "The reserves differ from what the ledger owes by 0.000000000000000001 AIT" in text(console)


def test_outbox_dead_tasks_and_queues_are_counted(console, scene, broker):
    OutboxEvent.objects.update(dead=False)
    OutboxEvent.objects.filter(pk=OutboxEvent.objects.earliest("id").pk).update(dead=True)
    DeadTask.objects.filter(pk=scene.dead.pk).update(requeued_at=timezone.now())
    broker.rpush("gpu", "a", "b", "c")
    shown = figures(console)

    assert shown["outbox"].split(",")[0] == str(OutboxEvent.objects.filter(dead=False).count())
    assert (shown["outbox-dead"], shown["dead-tasks"]) == ("1", "1")
    assert [shown[f"celery-{name}"] for name in ("default", "gpu", "settlement", "zk", "chain")] == [
        "0", "3", "0", "0", "0",
    ]  # fmt: skip


def test_an_unreachable_redis_is_said_to_be_unreachable(console, scene, settings):
    settings.CELERY_BROKER_URL = BROKEN
    shown = figures(console)

    assert "celery-gpu" not in shown
    page = text(console)
    assert "unreachable" in page
    assert "Redis cannot be reached" in page


def test_a_relay_that_stopped_raises_an_alarm(console, scene, broker):
    assert "The relay last noted" not in text(console)

    PlatformTick.objects.update(at=timezone.now() - timedelta(minutes=3))

    assert "The relay last noted that it is up 3 min 00 s ago" in text(console)


def test_completed_jobs_stand_in_the_hour_they_were_finished(console, scene, broker):
    hour = timezone.now().replace(minute=0, second=0, microsecond=0)
    Job.objects.filter(pk=scene.completed[0]).update(finished_at=hour - timedelta(hours=3) + timedelta(minutes=59))
    Job.objects.filter(pk=scene.completed[1]).update(finished_at=hour - timedelta(hours=24))
    chart = console.get("/admin/").context["chart"]

    assert len(chart) == 24
    assert chart[-1][0] == f"{hour:%H}:00"
    assert [count for _, count in chart] == [0] * 20 + [1, 0, 0, 0]


def test_devices_are_shown_with_their_latest_telemetry(console, scene, broker):
    Device.objects.filter(miner_id=scene.mike.miner_id).update(
        utilization=73.4, memory_used_mb=1024, temperature_c=None, power_w=118.0, sampled_at=timezone.now()
    )
    page = text(console)

    row = page[page.index("Sampled") :].split("mike", 1)[1][:200]
    assert re.split(r"\s{2,}", row.strip())[:4] == ["73 %", "1024 of 4096 MiB", "-", "118 W"]


def test_an_empty_platform_says_what_to_do(console, broker):
    page = text(console)

    assert "No miner has registered yet: start one with manage.py run_miner" in page
    assert "No job waits." in page
    assert "No chain worker has reported yet: start one with manage.py run_chain." in page
    assert "No batch yet" in page
    assert "never ran" in page
    assert not any(m.objects.exists() for m in (Job, Miner, NetworkStatus, SettlementBatch, ReceiptLeaf, ReserveCheck))


@pytest.mark.parametrize(
    ("figure", "index"), [(work.jobs_by_state, "job_created"), (work.completed_per_hour, "job_finished")]
)
def test_jobs_of_a_day_are_found_without_reading_the_others(scene, monkeypatch, figure, index):
    asked = []
    rows = db.rows
    monkeypatch.setattr(db, "rows", lambda sql, params=(): asked.append((sql, params)) or rows(sql, params))
    figure()
    ((sql, params),) = asked

    with transaction.atomic():
        rows("SET LOCAL enable_seqscan = off")
        plan = rows(f"EXPLAIN {sql}", params)

    assert any(f"Bitmap Index Scan on {index}" in line for (line,) in plan), plan


def test_the_chart_is_drawn_by_a_script_of_our_own_host(console, broker):
    """Chart.js comes with unfold, as a static file: no other host, no Node."""
    from django.contrib.staticfiles import finders

    html = console.get("/admin/").content.decode()
    scripts = re.findall(r'<script src="/static/([^"]+)"', html)

    assert {"unfold/js/chart/chart.js", "console/dashboard.js"} <= set(scripts)
    assert all(finders.find(script) for script in scripts)
    assert connections["default"].vendor == "postgresql"


def text(console):
    html = console.get("/admin/").content.decode()
    return re.sub(r"<[^>]+>", "", html)
