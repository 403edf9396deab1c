"""The state machine: who moves an offer where, how it follows its miner, what the database refuses."""

from datetime import timedelta

import pytest
from django.db import IntegrityError, connection, transaction
from django.utils import timezone

from aitbc.accounts.models import Role
from aitbc.core.errors import Conflict
from aitbc.core.events import Event
from aitbc.core.ids import uuid7
from aitbc.core.outbox import relay_once
from aitbc.core.testing import cast
from apps.gpu.agent import challenge as protocol
from apps.gpu.models import Challenge, Device, Miner
from apps.gpu.runtimes.contract import Context
from apps.gpu.services import challenges, miners, sweeps
from apps.marketplace import receivers
from apps.marketplace.models import Offer, OfferDevice, OfferTransition
from apps.marketplace.services.following import follow_miner
from apps.marketplace.services.offers import lift_suspension, suspend_offer
from apps.marketplace.tests.conftest import OFFERS, add_device, card, come_back, price, read

pytestmark = pytest.mark.django_db


@pytest.fixture
def offer(mike, offer_of):
    relay_once()
    return Offer.objects.get(pk=offer_of(mike)["id"])


@pytest.fixture
def path(offer):
    return f"{OFFERS}/{offer.pk}"


@pytest.fixture
def operator(db):
    return cast.person("olga", Role.OPERATOR)


def standing(offer):
    """State and reason now; the rows of the devices must say the same state."""
    offer.refresh_from_db()
    assert set(offer.parts.values_list("state", flat=True)) == {offer.state}
    return offer.state, offer.reason


def history(offer):
    rows = offer.transitions.values_list("before", "after", "reason", "by_id")
    return [(before, after, reason, by) for before, after, reason, by in rows]


def test_pause_list_again_and_delist_are_logged_with_who_did_them(mike, offer, path):
    assert read(mike.patch(path, {"state": "paused"}))["reason"] == "seller"
    assert read(mike.patch(path, {"state": "listed"}))["reason"] is None
    assert read(mike.delete(path))["state"] == "delisted"

    assert standing(offer) == ("delisted", "seller")
    assert history(offer) == [
        ("", "listed", "", mike.id),
        ("listed", "paused", "seller", mike.id),
        ("paused", "listed", "", mike.id),
        ("listed", "delisted", "seller", mike.id),
    ]


def test_repeats_change_nothing(mike, offer, path):
    read(mike.patch(path, {"state": "listed"}))
    first = read(mike.delete(path))

    assert read(mike.delete(path)) == first
    assert OfferTransition.objects.count() == 2


def test_delisted_is_final(mike, offer, path, operator):
    read(mike.delete(path))

    assert read(mike.patch(path, {"state": "listed"}), 409)["code"] == "offer.delisted"
    assert read(mike.patch(path, {"price": price("9")}), 409)["code"] == "offer.delisted"
    with pytest.raises(Conflict, match=r"offer\.delisted"):
        suspend_offer(offer_id=offer.pk, by=operator.id, note="too late")
    follow_miner(miner_id=mike.miner_id)
    assert standing(offer) == ("delisted", "seller")
    assert offer.price == 10**15


def test_only_the_platform_ends_a_suspension(mike, offer, path, operator):
    suspend_offer(offer_id=offer.pk, by=operator.id, note="sold what it has not")

    assert read(mike.patch(path, {"state": "listed"}), 409)["code"] == "offer.suspended"
    assert read(mike.patch(path, {"price": price("9")}), 409)["code"] == "offer.suspended"
    follow_miner(miner_id=mike.miner_id)
    assert standing(offer) == ("suspended", "platform")
    assert offer.transitions.last().note == "sold what it has not"

    lift_suspension(offer_id=offer.pk, by=operator.id)
    assert standing(offer) == ("listed", "")
    with pytest.raises(Conflict, match=r"offer\.not_suspended"):
        lift_suspension(offer_id=offer.pk, by=operator.id)


def test_a_lifted_suspension_of_an_absent_miner_waits_for_it(mike, offer, operator):
    suspend_offer(offer_id=offer.pk, by=operator.id, note="")
    miners.sign_off(key=mike.principal.key_id)

    lift_suspension(offer_id=offer.pk, by=operator.id)

    assert standing(offer) == ("paused", "miner_left")


def test_a_seller_may_withdraw_a_suspended_offer(mike, offer, path, operator):
    suspend_offer(offer_id=offer.pk, by=operator.id, note="")

    assert read(mike.delete(path))["state"] == "delisted"


def test_an_offer_leaves_with_its_miner_and_returns_when_it_registers_again(mike, offer, path):
    miners.sign_off(key=mike.principal.key_id)
    relay_once()
    assert standing(offer) == ("paused", "miner_left")
    assert read(mike.patch(path, {"state": "listed"}), 409)["code"] == "offer.miner_left"

    come_back(mike)
    relay_once()

    assert standing(offer) == ("listed", "")
    assert history(offer)[1:] == [("listed", "paused", "miner_left", None), ("paused", "listed", "", None)]


def test_an_offer_follows_a_miner_that_died_and_beats_again(mike, offer):
    Miner.objects.update(last_seen_at=timezone.now() - timedelta(hours=1))
    sweeps._dead()
    relay_once()
    assert standing(offer) == ("paused", "miner_left")

    miner = Miner.objects.get()
    beat = {"telemetry": [], "running": [], "sequence": miner.sequence + 1, "previous": miner.head}
    read(mike.post("/v1/miners/heartbeat", beat))
    relay_once()

    assert standing(offer) == ("listed", "")


def test_a_draining_miners_offer_is_paused_and_returns(mike, offer):
    miners.drain(key=mike.principal.key_id)
    relay_once()
    assert standing(offer) == ("paused", "miner_draining")

    come_back(mike)
    relay_once()

    assert standing(offer) == ("listed", "")


def test_what_the_seller_paused_stays_paused_when_the_miner_returns(mike, offer, path):
    read(mike.patch(path, {"state": "paused"}))
    miners.sign_off(key=mike.principal.key_id)
    relay_once()
    come_back(mike)
    relay_once()

    assert standing(offer) == ("paused", "seller")


def test_a_seller_may_pause_for_good_what_was_paused_in_passing(mike, offer, path):
    miners.drain(key=mike.principal.key_id)
    relay_once()

    read(mike.patch(path, {"state": "paused"}))
    come_back(mike)
    relay_once()

    assert standing(offer) == ("paused", "seller")


def test_a_late_or_repeated_event_is_judged_by_the_present(mike, offer):
    left = Event(uuid7(), "gpu.miner_left", f"miner:{mike.miner_id}", 1, {"miner": str(mike.miner_id)})

    receivers.look_again(left)
    receivers.look_again(left)

    assert standing(offer) == ("listed", "")
    assert len(history(offer)) == 1


def test_other_miners_offers_are_left_alone(mike, nora, offer, offer_of):
    other = Offer.objects.get(pk=offer_of(nora)["id"])

    miners.sign_off(key=mike.principal.key_id)
    relay_once()

    assert standing(other) == ("listed", "")


def test_a_device_that_is_gone_pauses_the_offer_until_it_is_back(mike, offer):
    add_device(mike, card())
    Device.objects.filter(pk=offer.devices.get().pk).update(active=False)
    assert follow_miner(miner_id=mike.miner_id) == 1
    assert standing(offer) == ("paused", "device_gone")

    Device.objects.update(active=True)

    assert follow_miner(miner_id=mike.miner_id) == 1
    assert follow_miner(miner_id=mike.miner_id) == 0
    assert standing(offer) == ("listed", "")


def test_another_model_is_not_sold_under_the_old_name_until_the_seller_says_so(mike, offer, path):
    Device.objects.update(model="NVIDIA T4", memory_mb=16 * 1024)
    follow_miner(miner_id=mike.miner_id)
    assert standing(offer) == ("paused", "hardware_changed")
    assert offer.model == "NVIDIA H200"

    shown = read(mike.patch(path, {"state": "listed"}))

    assert (shown["state"], shown["model"], shown["memory_gb"]) == ("listed", "NVIDIA T4", 16)


def test_a_kind_that_the_miner_no_longer_runs_pauses_the_offer(mike, offer, path):
    Miner.objects.update(kinds=["vision.ocr"])
    follow_miner(miner_id=mike.miner_id)
    assert standing(offer) == ("paused", "kinds_gone")

    shown = read(mike.patch(path, {"state": "listed", "kinds": ["vision.ocr"]}))

    assert (shown["state"], shown["kinds"]) == ("listed", ["vision.ocr"])


def test_of_two_offers_of_one_device_only_one_comes_back(mike, offer, path, offer_of):
    miners.drain(key=mike.principal.key_id)
    relay_once()
    come_back(mike)  # and before the event is relayed the seller lists the device anew
    newer = Offer.objects.get(pk=offer_of(mike, "0.5")["id"])
    relay_once()

    assert standing(newer) == ("listed", "")
    assert standing(offer) == ("paused", "device_taken")
    assert read(mike.patch(path, {"state": "listed"}), 409)["code"] == "offer.device_taken"


def take_challenge(seller, folder, *, honest):
    """The real exchange, on a small piece of work."""
    challenges._issue(Miner.objects.get(), Device.objects.get())
    Challenge.objects.filter(state="issued").update(n=128, rounds=2, steps=1)
    key, challenge = seller.principal.key_id, Challenge.objects.get(state="issued")
    spec = protocol.Spec(bytes.fromhex(challenge.seed[2:]), n=128, rounds=2, steps=1)
    roots = protocol.commit(spec, Context(folder, {}))["roots"]
    asked = challenges.commit(key=key, challenge=challenge.pk, roots=roots)
    rows = protocol.open_rows(spec, asked["rows"], Context(folder, {}))
    answer = challenges.open_rows(key=key, challenge=challenge.pk, rows=rows if honest else rows[:-1])
    assert answer["passed"] is honest


def test_a_passed_challenge_verifies_the_offer_and_a_failed_one_suspends_it(mike, offer_of, tmp_path):
    cast.register_again(mike, devices=[card("A card nobody knows")])
    offer = Offer.objects.get(pk=offer_of(mike)["id"])
    Device.objects.filter(active=False).delete()
    take_challenge(mike, tmp_path, honest=True)
    relay_once()
    offer.refresh_from_db()
    assert offer.verified is True

    take_challenge(mike, tmp_path, honest=False)
    relay_once()
    assert standing(offer) == ("suspended", "hardware_doubted")
    assert offer.verified is False

    take_challenge(mike, tmp_path, honest=True)
    relay_once()
    assert standing(offer) == ("listed", "")


def test_doubted_hardware_is_suspended_with_the_reason_in_words_and_comes_back_without(mike, offer, path, offer_of):
    Device.objects.update(verified=True, tflops=8.0, memory_gbps=300.0)
    relay_once()

    assert standing(offer) == ("suspended", "hardware_doubted")
    note = offer.transitions.latest("id").note
    assert note == Device.objects.get().doubt
    assert note.endswith("like the T4 and not like the H200 SXM that it claims to be")
    assert read(mike.patch(path, {"state": "listed"}), 409)["code"] == "offer.suspended"
    refused = mike.post(OFFERS, {"price": price("0.001")})
    assert read(refused, 409)["code"] == "offer.hardware_doubted"

    Device.objects.update(verified=True, tflops=60.0, memory_gbps=4000.0)
    relay_once()
    assert standing(offer) == ("listed", "")


def test_the_platforms_own_suspension_outlives_a_doubt(mike, offer, operator):
    suspend_offer(offer_id=offer.pk, by=operator.user.pk, note="for other reasons")
    for tflops in (8.0, 60.0):
        Device.objects.update(verified=True, tflops=tflops, memory_gbps=4000.0)
        relay_once()

    assert standing(offer) == ("suspended", "platform")


def test_the_region_follows_the_miner(mike, offer):
    Miner.objects.update(region="us-west")
    follow_miner(miner_id=mike.miner_id)

    offer.refresh_from_db()
    assert offer.region == "us-west"


@pytest.mark.parametrize(
    "change",
    [
        "price = 0",
        "price = -1",
        "device_count = 0",
        "memory_mb = 0",
        "kinds = '{}'",
        "state = 'sold'",
        "state = 'paused'",
        "reason = 'seller'",
    ],
)
def test_the_database_refuses_what_no_offer_can_be(offer, change):
    with pytest.raises(IntegrityError), transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(f"UPDATE marketplace_offer SET {change}")
    assert standing(offer) == ("listed", "")


def test_the_database_lists_a_device_once_and_knows_its_offers_state(mike, offer, offer_of, path):
    device = offer.devices.get()
    read(mike.patch(path, {"state": "paused"}))
    newer = Offer.objects.get(pk=offer_of(mike)["id"])

    with pytest.raises(IntegrityError, match="offerdevice_listed_once"), transaction.atomic():
        Offer.objects.filter(pk=offer.pk).update(state="listed", reason="")
    with pytest.raises(IntegrityError, match="offerdevice_follows_offer"), transaction.atomic():
        OfferDevice.objects.filter(offer=offer).update(state="delisted")
    with pytest.raises(IntegrityError, match="offerdevice_once"), transaction.atomic():
        OfferDevice.objects.create(offer=newer, device=device, state="listed")
    assert (standing(offer), standing(newer)) == (("paused", "seller"), ("listed", ""))


def test_the_database_keeps_a_delisted_offer_and_every_offers_miner(mike, nora, offer, path):
    with pytest.raises(IntegrityError), transaction.atomic():
        Offer.objects.filter(pk=offer.pk).update(miner_id=nora.miner_id)
    read(mike.delete(path))
    with pytest.raises(IntegrityError), transaction.atomic():
        Offer.objects.filter(pk=offer.pk).update(price=1)
    assert standing(offer) == ("delisted", "seller")
    assert (offer.price, offer.miner_id) == (10**15, mike.miner_id)
