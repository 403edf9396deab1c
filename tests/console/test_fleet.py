"""The fleet by region, and a device's history, as the rows have them."""

import re
from datetime import timedelta

import orjson
import pytest
from django.urls import reverse

from aitbc.core import clock, db
from aitbc.core.ids import uuid7
from aitbc.core.testing import cast
from apps.gpu.models import Device, Miner

pytestmark = pytest.mark.django_db(databases=["default", "chain"])


def figures(console):
    html = console.get("/admin/fleet/").content.decode()
    parts = re.findall(r'data-region="([^"]+)">(.*?)</p>', html, re.DOTALL)
    return {region: " ".join(re.sub(r"<[^>]+>", "", text).split()) for region, text in parts}, html


def test_each_region_is_shown_with_its_devices_load_states_and_offers(console, scene):
    cast.seller("olaf", region="us", concurrency=4)
    Miner.objects.filter(pk=scene.nora.miner_id).update(state="suspect")
    device = Device.objects.get(miner_id=scene.mike.miner_id)
    Device.objects.filter(pk=device.pk).update(utilization=73.4)
    now = clock.database_now()
    db.value(
        "SELECT gpu_occupy(%s, %s, %s, %s, %s)", (uuid7(), scene.alice.id, [device.pk], now, now + timedelta(hours=1))
    )

    shown, html = figures(console)

    assert shown == {
        "eu": "2 devices, 8 GiB 2 miners: 1 online, 1 suspect 0 of 1 slots busy load 73 % 2 offers listed",
        "us": "1 device, 4 GiB 1 miner: 1 online 0 of 4 slots busy load - 0 offers listed",
    }
    (cell,) = re.findall(rf'<a class="([^"]+)" href="{reverse("admin:gpu_device_change", args=[device.pk])}"', html)
    assert cell == "cell success let"
    assert '<i style="height: 73%">' in html


def test_a_miner_that_signed_off_is_on_no_map(console, db):
    cast.seller("mike")
    Miner.objects.update(state="offline")

    shown, html = figures(console)

    assert shown == {}
    assert "No miner has registered yet" in html


def test_the_map_is_for_those_who_may_see_miners(console, visitor, operator, client):
    assert console.get("/admin/fleet/").status_code == 200
    assert visitor.get("/admin/fleet/").status_code == 302
    assert client.get("/admin/fleet/").status_code == 302
    type(operator).objects.filter(pk=operator.pk).update(is_superuser=False, is_staff=True)
    assert console.get("/admin/fleet/").status_code == 403


def test_a_devices_page_draws_its_last_day(console, scene):
    device = Device.objects.get(miner_id=scene.mike.miner_id)
    url = reverse("admin:gpu_device_change", args=[device.pk])
    assert "No sample in the last 24 hours." in console.get(url).content.decode()
    now = clock.database_now()
    for hours, load in ((30, 90), (2, 40), (1, 60)):
        sample = orjson.dumps([{"device_id": str(device.pk), "utilization": load}]).decode()
        db.rows(
            "SELECT gpu_note_samples(%s, %s, %s::jsonb)", (scene.mike.miner_id, now - timedelta(hours=hours), sample)
        )

    html = console.get(url).content.decode()

    (data,) = re.findall(r'<script id="telemetry-data" type="application/json">(.*?)</script>', html)
    assert [point["metrics"]["utilization"]["avg"] for point in orjson.loads(data)] == [40, 60]
    assert "console/telemetry.js" in html
