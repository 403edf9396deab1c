"""Offers over HTTP: what is shown, who may write, what a repeat does; refusals change nothing."""

from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import pytest
from django.test import Client

from aitbc.accounts.keys import create_key, find_principal
from aitbc.core.testing import cast
from aitbc.core.testing.cast import Person
from apps.gpu.models import Device, Miner
from apps.marketplace.models import Offer, OfferTransition
from apps.marketplace.tests.conftest import OFFERS, add_device, card, price, read

pytestmark = pytest.mark.django_db
PLAIN = {"price": price("0.0005")}


def key_of(seller: Person, *scopes: str) -> Person:
    _, token = create_key(user=seller.user, name="another", scopes=scopes)
    principal = find_principal(token)
    assert principal is not None
    return Person(seller.user, token, principal)


def test_a_listed_offer_shows_what_the_miner_registered_and_null_for_what_nobody_measured(mike):
    shown = read(mike.post(OFFERS, PLAIN), 201)

    device = Device.objects.get(miner_id=mike.miner_id)
    begins, created = (datetime.fromisoformat(shown.pop(name)) for name in ("available_from", "created_at"))
    assert abs(created - begins) < timedelta(seconds=5)
    assert UUID(shown.pop("id")).version == 7
    assert shown == {
        "miner_id": str(mike.miner_id),
        "devices": [
            {
                "id": str(device.pk),
                "kind": "cuda",
                "model": "NVIDIA H200",
                "memory_mb": 144384,
                "cuda": "12.8",
                "verified": False,
                "tflops": None,
                "memory_gbps": None,
            }
        ],
        "model": "NVIDIA H200",
        "device_count": 1,
        "memory_gb": 141,
        "sla": None,
        "price": {"on_demand": {"amount": "0.0005", "asset": "AIT"}, "spot": None, "reserved": None},
        "region": "eu",
        "kinds": ["bench.matmul"],
        "reliability": None,
        "dl_score": None,
        "score": 0,
        "reserved_discount_bps": None,
        "min_seconds": None,
        "max_seconds": None,
        "expires_at": None,
        "verified": False,
        "state": "listed",
        "reason": None,
    }
    assert Offer.objects.get().price == 5 * 10**14


def test_anybody_reads_an_offer_and_the_list_without_a_key(mike, offer_of):
    offer = offer_of(mike)

    assert read(Client().get(f"{OFFERS}/{offer['id']}")) == offer
    assert read(Client().get(OFFERS)) == {"items": [offer], "next": None, "total": None, "explain": None}
    assert read(Client().get(f"{OFFERS}/{uuid4()}"), 404)["code"] == "offer.unknown"


def test_chosen_devices_kinds_and_begin_are_kept(mike):
    second = add_device(mike, card(memory_mb=80 * 1024))
    Miner.objects.filter(pk=mike.miner_id).update(kinds=["bench.matmul", "onnx.infer", "vision.ocr"])
    tomorrow = datetime.now(UTC) + timedelta(days=1)

    body = PLAIN | {"devices": [second.pk], "kinds": ["onnx.infer"], "available_from": tomorrow.isoformat()}
    shown = read(mike.post(OFFERS, body), 201)

    assert [device["id"] for device in shown["devices"]] == [str(second.pk)]
    assert (shown["device_count"], shown["memory_gb"], shown["kinds"]) == (1, 80, ["onnx.infer"])
    assert datetime.fromisoformat(shown["available_from"]) == tomorrow


def test_an_offer_of_several_devices_counts_them_and_shows_the_smallest_memory(mike):
    add_device(mike, card(memory_mb=80 * 1024))

    shown = read(mike.post(OFFERS, PLAIN), 201)

    assert (shown["device_count"], shown["memory_gb"], len(shown["devices"])) == (2, 80, 2)


def test_an_offer_is_verified_only_when_all_its_devices_are(mike, offer_of):
    second = add_device(mike, card())
    Device.objects.exclude(pk=second.pk).update(verified=True)
    offer = offer_of(mike)
    assert offer["verified"] is False
    read(mike.delete(f"{OFFERS}/{offer['id']}"))

    Device.objects.update(verified=True)

    assert offer_of(mike)["verified"] is True


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"price": price("0")}, "price"),
        ({"devices": [str(uuid4())]}, "devices"),
        ({"kinds": ["vision.ocr"]}, "kinds"),
        ({"available_from": "2999-01-01T00:00:00Z"}, "available_from"),
        ({"available_from": "9999-12-31T23:59:59-14:00"}, "available_from"),
        ({"price": price("1e3")}, "price"),
        ({"price": price("-1")}, "price"),
        ({"region": "moon"}, "region"),
    ],
)
def test_a_wrong_offer_is_refused_with_its_field_and_nothing_is_written(mike, change, field):
    problem = read(mike.post(OFFERS, PLAIN | change), 422)

    assert field in [part for error in problem["errors"] for part in error["loc"]]
    assert (Offer.objects.count(), OfferTransition.objects.count()) == (0, 0)


def test_devices_of_two_models_do_not_make_one_offer(mike):
    add_device(mike, card("NVIDIA RTX 4090"))

    problem = read(mike.post(OFFERS, PLAIN), 422)

    assert problem["errors"][0]["loc"] == ["body", "devices"]
    assert Offer.objects.count() == 0


def test_a_begin_in_the_past_is_now(mike):
    shown = read(mike.post(OFFERS, PLAIN | {"available_from": "0001-01-01T00:00:00+14:00"}), 201)

    assert datetime.now(UTC) - datetime.fromisoformat(shown["available_from"]) < timedelta(minutes=1)


def test_a_device_is_in_one_listed_offer_at_a_time(mike, offer_of):
    first = offer_of(mike)

    assert read(mike.post(OFFERS, PLAIN), 409)["code"] == "offer.device_taken"
    assert Offer.objects.count() == 1

    read(mike.delete(f"{OFFERS}/{first['id']}"))
    assert offer_of(mike)["state"] == "listed"


def test_a_miner_that_takes_no_work_cannot_list(mike):
    read(mike.post("/v1/miners/me/drain"))

    assert read(mike.post(OFFERS, PLAIN), 409)["code"] == "offer.miner_draining"
    assert Offer.objects.count() == 0


def test_one_idempotency_key_is_one_offer(mike):
    first = mike.post(OFFERS, PLAIN, idempotency_key="k1")
    again = mike.post(OFFERS, PLAIN, idempotency_key="k1")

    assert (first.status_code, again.status_code) == (201, 201)
    assert again.content == first.content
    assert again["Idempotency-Replayed"] == "true"
    other = mike.post(OFFERS, {"price": price("0.7")}, idempotency_key="k1")
    assert read(other, 422)["code"] == "idempotency.mismatch"
    assert Offer.objects.count() == 1


def test_a_refused_offer_does_not_use_up_its_key(mike):
    read(mike.post(OFFERS, PLAIN | {"kinds": ["vision.ocr"]}, idempotency_key="k2"), 422)

    assert mike.post(OFFERS, PLAIN, idempotency_key="k2").status_code == 201


@pytest.mark.parametrize(
    ("who", "post", "write"),
    [("stranger", 404, 404), ("client", 403, 403), ("miner_key", 409, 200), ("owner_key", 409, 200)],
)
def test_only_the_miners_side_writes(who, post, write, mike, nora, alice, offer_of):
    """409: the seller's own device is listed already, so the right to post was not in question."""
    offer = offer_of(mike)
    caller = {
        "stranger": cast.person("mallory", scopes=("offers:write",)),
        "client": alice,
        "miner_key": mike,
        "owner_key": key_of(mike, "offers:write"),
    }[who]
    path, before = f"{OFFERS}/{offer['id']}", OfferTransition.objects.count()

    assert caller.post(OFFERS, PLAIN | {"miner_id": mike.miner_id}).status_code == post
    assert caller.patch(path, {"state": "paused"}).status_code == write
    changed = OfferTransition.objects.count() - before
    assert changed == (1 if write == 200 else 0)
    assert read(Client().get(path))["state"] == ("paused" if write == 200 else "listed")


def test_another_miners_offer_does_not_exist_for_a_seller(mike, nora, offer_of):
    offer = offer_of(mike)
    path = f"{OFFERS}/{offer['id']}"

    assert read(nora.patch(path, {"price": price("9")}), 404)["code"] == "offer.unknown"
    assert read(nora.delete(path), 404)["code"] == "offer.unknown"
    assert read(nora.post(OFFERS, PLAIN | {"miner_id": mike.miner_id}), 404)["code"] == "miner.unknown"
    assert read(Client().get(path)) == offer


def test_another_key_of_the_owner_needs_its_own_scope(mike, offer_of):
    """The scope `miner` speaks for the miner of that very key, `offers:write` for all of the owner's."""
    path = f"{OFFERS}/{offer_of(mike)['id']}"

    assert key_of(mike, "miner").delete(path).status_code == 404
    assert key_of(mike, "offers:write").delete(path).status_code == 200


def test_without_a_key_nothing_is_written(mike, offer_of):
    path = f"{OFFERS}/{offer_of(mike)['id']}"

    assert Client().post(OFFERS, "{}", content_type="application/json").status_code == 401
    assert Client().patch(path, "{}", content_type="application/json").status_code == 401
    assert Client().delete(path).status_code == 401
    assert Offer.objects.get().state == "listed"


def test_price_kinds_and_begin_can_be_changed_and_the_rest_stays(mike, offer_of):
    Miner.objects.filter(pk=mike.miner_id).update(kinds=["bench.matmul", "vision.ocr"])
    offer = offer_of(mike)

    body = {"price": price("0.25"), "kinds": ["vision.ocr"]}
    shown = read(mike.patch(f"{OFFERS}/{offer['id']}", body))

    assert shown == offer | {
        "price": {"on_demand": {"amount": "0.25", "asset": "AIT"}, "spot": None, "reserved": None},
        "kinds": ["vision.ocr"],
    }
    assert read(mike.patch(f"{OFFERS}/{offer['id']}", {})) == shown


def test_a_wrong_change_is_refused_whole(mike, offer_of):
    offer = offer_of(mike)
    path = f"{OFFERS}/{offer['id']}"

    read(mike.patch(path, {"price": price("0.9"), "kinds": ["vision.ocr"]}), 422)
    read(mike.patch(path, {"state": "suspended"}), 422)
    read(mike.patch(path, {"model": "NVIDIA B200"}), 422)

    assert read(Client().get(path)) == offer


TERMS = {
    "price": price("0.001") | {"spot": {"amount": "0.0004", "asset": "AIT"}, "reserved_discount_bps": 3333},
    "min_seconds": 60,
    "max_seconds": 7200,
}


def test_terms_are_listed_changed_and_taken_away(mike, offer_of):
    end = (datetime.now(UTC) + timedelta(days=3)).isoformat()
    shown = read(mike.post(OFFERS, {**TERMS, "expires_at": end}), 201)

    assert shown["price"] == {
        "on_demand": {"amount": "0.001", "asset": "AIT"},
        "spot": {"amount": "0.0004", "asset": "AIT"},
        "reserved": {"amount": "0.0006667", "asset": "AIT"},
    }
    assert (shown["min_seconds"], shown["max_seconds"], shown["reserved_discount_bps"]) == (60, 7200, 3333)
    assert datetime.fromisoformat(shown["expires_at"]) == datetime.fromisoformat(end)

    one = f"{OFFERS}/{shown['id']}"
    changed = read(mike.patch(one, {"price": {"spot": {"amount": "0.0005"}}, "max_seconds": 0}))
    assert changed == shown | {
        "price": shown["price"] | {"spot": {"amount": "0.0005", "asset": "AIT"}}, "max_seconds": None
    }  # fmt: skip

    none = read(mike.patch(one, {"price": {"spot": {"amount": "0"}, "reserved_discount_bps": 0}, "min_seconds": 0}))
    assert none["price"] == {"on_demand": {"amount": "0.001", "asset": "AIT"}, "spot": None, "reserved": None}
    assert none["min_seconds"] is None


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"price": {"spot": {"amount": "0.0011"}}}, "price"),
        ({"price": {"on_demand": {"amount": "0.0003"}}}, "price"),
        ({"price": {"on_demand": {"amount": "0"}}}, "price"),
        ({"price": {"reserved_discount_bps": 10_000}}, "reserved_discount_bps"),
        ({"min_seconds": 7201}, "max_seconds"),
        ({"max_seconds": 59}, "max_seconds"),
        ({"min_seconds": -1}, "min_seconds"),
        ({"expires_at": "2020-01-01T00:00:00Z"}, "expires_at"),
        ({"expires_at": "2420-01-01T00:00:00Z"}, "expires_at"),
        ({"expires_at": "2026-01-01T00:00:00"}, "expires_at"),
    ],
)
def test_terms_that_contradict_each_other_are_refused_and_change_nothing(mike, change, field):
    offer = read(mike.post(OFFERS, TERMS), 201)

    problem = read(mike.patch(f"{OFFERS}/{offer['id']}", change), 422)

    assert field in [part for error in problem["errors"] for part in error["loc"]]
    assert read(Client().get(f"{OFFERS}/{offer['id']}")) == offer
