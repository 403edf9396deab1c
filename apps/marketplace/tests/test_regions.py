"""Regions: health and load from their miners, terms, latencies of a client, and the best one with its reasons."""

import pytest
from django.test import Client

from aitbc.core import db
from aitbc.core.testing import cast
from aitbc.core.testing.cast import job_body
from aitbc.core.testing.snapshot import nothing_changes
from apps.gpu.models import Miner
from apps.marketplace.models import Region
from apps.marketplace.tests.conftest import OFFERS, card, read

pytestmark = pytest.mark.django_db


def refresh():
    db.value("SELECT regions_refresh()")
    return {row["code"]: row for row in read(Client().get("/v1/regions"))["items"]}


def terms(code):
    return db.row("SELECT fee_bps, price_bps, open FROM region_terms(%s)", (code,))


def attempts(miner, bad, fault="provider"):
    for number in range(bad):
        db.rows(
            """INSERT INTO gpu_attempt (job_id, attempt, miner_id, leased_at, ended_at, ms, code, message, fault)
               VALUES (gen_random_uuid(), %s, %s, now(), now(), 0, 'x', '', %s)""",
            (number, miner.miner_id, fault),
        )


def test_a_region_appears_with_its_first_miner_and_knows_what_it_cannot_judge(mike, db):
    (row,) = refresh().values()

    assert (row["code"], row["name"], row["miners"], row["online"]) == ("eu", "eu", 1, 1)
    assert (row["health"], row["load"], row["open"], row["status"]) == (1, 0, True, "active")
    assert (row["latitude"], row["longitude"], row["fee_bps"], row["price_bps"]) == (None, None, 0, 10_000)
    Miner.objects.update(state="offline")
    (row,) = refresh().values()
    assert (row["health"], row["load"], row["open"], row["miners"]) == (None, None, True, 0)


def test_below_half_the_health_a_region_is_out_and_comes_back(mike, offer_of):
    offer = offer_of(mike)
    standing = f"{OFFERS}/{offer['id']}/standing"
    for name in ("olga", "otto"):
        dead = cast.seller(name)
        Miner.objects.filter(pk=dead.miner_id).update(state="dead")
    refresh()

    assert read(Client().get("/v1/regions"))["items"][0]["health"] == pytest.approx(1 / 3, abs=1e-6)
    assert terms("eu") == (0, 10_000, False)
    assert read(Client().get(standing))["region_open"] is False
    Miner.objects.filter(name="olga").update(state="online")
    refresh()
    assert terms("eu") == (0, 10_000, True)
    assert read(Client().get(standing))["region_open"] is True


def test_failures_of_providers_lower_the_health_those_of_clients_do_not(mike):
    attempts(mike, 4)
    assert refresh()["eu"]["health"] == 1  # four ends say too little
    attempts(mike, 20, "client")
    assert refresh()["eu"]["health"] == 1
    db.rows(
        "UPDATE gpu_attempt SET fault = 'provider' WHERE id = (SELECT min(id) FROM gpu_attempt WHERE fault = 'client')"
    )

    assert refresh()["eu"]["health"] == 0


def test_load_is_the_share_of_busy_slots(mike, alice):
    Miner.objects.update(concurrency=4)
    read(alice.post("/v1/jobs", job_body()), 201)
    mike.poll()

    assert refresh()["eu"]["load"] == 0.25


def test_terms_are_what_was_configured_and_nothing_for_the_unknown(mike):
    refresh()
    Region.objects.update(fee_bps=100, price_bps=11_500)

    assert terms("eu") == (100, 11_500, True)
    assert terms("nowhere") == (0, 10_000, True)
    Region.objects.update(status="maintenance")
    assert terms("eu") == (100, 11_500, False)
    assert refresh()["eu"]["open"] is False


def test_latencies_are_a_clients_own_medians_of_the_last_twenty(mike, alice):
    refresh()
    Region.objects.update(probe_url="https://eu.example.com/probe")
    target = {"region": "eu", "probe_url": "https://eu.example.com/probe", "ms": None, "samples": 0, "at": None}
    assert read(alice.get("/v1/regions/latency"))["items"] == [target]

    body = {"samples": {"eu": [*range(1, 21)]}}
    read(alice.post("/v1/regions/latency", {"samples": {"eu": [900]}}))
    (row,) = read(alice.post("/v1/regions/latency", body, idempotency_key="rtt"))["items"]
    again = read(alice.post("/v1/regions/latency", body, idempotency_key="rtt"))["items"]

    assert (row["ms"], row["samples"]) == (10, 20)
    assert again == [row]
    assert read(mike.get("/v1/regions/latency"))["items"] == [target]
    with nothing_changes():
        wrong = {"samples": {"eu": [1], "moon": [1280]}}
        assert read(alice.post("/v1/regions/latency", wrong), 422)["code"] == "region.unknown"
        assert alice.post("/v1/regions/latency", {"samples": {"eu": [-1]}}).status_code == 422
    assert Client().get("/v1/regions/latency").status_code == 401


def test_the_best_region_is_healthy_then_near_then_idle_and_says_why(mike, alice, offer_of):
    offer_of(mike)
    for name, region in (("olga", "us"), ("otto", "asia"), ("oona", "africa")):
        offer_of(cast.seller(name, device=card(), region=region))
    refresh()
    Region.objects.filter(code="eu").update(load=0.2)
    Region.objects.filter(code="africa").update(health=0.4)
    Region.objects.filter(code="asia").update(load=0.1)

    def best(who=alice, **query):
        return read(who.get("/v1/regions/best" + ("?model=" + query["model"] if query else "")))

    first = best()
    assert [(row["region"], row["place"]) for row in first["candidates"]] == [
        ("us", 1),
        ("asia", 2),
        ("eu", 3),
        ("africa", None),
    ]
    assert first["candidates"][0]["why"] == "health 1.000, latency not measured by you, load 0.000"
    assert first["candidates"][3]["why"] == "out: health 0.400 is below 0.5"
    alice.post("/v1/regions/latency", {"samples": {"eu": [12.5], "us": [80]}})
    assert [row["region"] for row in best()["candidates"]][:3] == ["eu", "us", "asia"]
    assert best()["candidates"][0]["why"] == "health 1.000, your median 12.5 ms, load 0.200"
    assert best(mike)["best"] == "us"
    Region.objects.filter(code="eu").update(health=0.9)
    assert best()["best"] == "us"
    none = best(model="B200")
    assert none["best"] is None
    assert {row["why"] for row in none["candidates"]} == {
        "out: nothing that fits is listed there",
        "out: health 0.400 is below 0.5",
    }


def test_an_order_pays_its_regions_price_and_the_fee_that_was_shown():
    """0.001 a second, a tenth dearer there, and 1 % for the region; the platform keeps that and its own share."""
    alice, mike = cast.person("alice"), cast.seller("mike", device=card(), region="eu")
    cast.fund(alice.id, cast.AIT)
    read(mike.post(OFFERS, {"price": {"on_demand": {"amount": "0.001", "asset": "AIT"}}}), 201)
    Region.objects.create(code="eu", name="Europe", status="active", fee_bps=100, price_bps=11_000)

    asked = read(alice.post("/v1/marketplace/quotes", {"seconds": 100, "constraints": {"region": "eu"}}), 201)

    assert asked["rate"]["amount"] == "0.001111"
    assert asked["total"]["amount"] == "0.1111"
    assert asked["breakdown"]["fee"]["amount"] == "0.003855170"[:-1]  # ceil((250 + 100) / 1.01) = 347 basis points
    accepted = read(alice.post(f"/v1/marketplace/quotes/{asked['id']}/accept"), 201)
    assert (accepted["rate"], accepted["total"]) == (asked["rate"], asked["total"])


def test_a_closed_region_is_not_chosen_but_may_be_named():
    alice, mike = cast.person("alice"), cast.seller("mike", device=card(), region="eu")
    cast.fund(alice.id, cast.AIT)
    offer = read(mike.post(OFFERS, {"price": {"on_demand": {"amount": "0.001", "asset": "AIT"}}}), 201)
    Region.objects.create(code="eu", name="Europe", status="maintenance")

    refused = read(alice.post("/v1/marketplace/quotes", {"seconds": 60}), 409)
    assert refused["code"] == "quote.no_match"
    read(alice.post("/v1/marketplace/quotes", {"seconds": 60, "offer_id": offer["id"]}), 201)
