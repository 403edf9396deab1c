"""Miners: who they are, what they own, that they live, and what they earned."""

from datetime import timedelta

import pytest
from django.conf import settings
from django.db.models import F

from aitbc.accounts import parameters
from aitbc.accounts.keys import create_key, find_principal
from aitbc.chain import signing
from aitbc.core import db, money, ticks
from aitbc.core.ids import uuid7
from aitbc.core.models import OutboxEvent, PlatformTick
from aitbc.core.testing import cast
from aitbc.core.testing.cast import MATMUL_OUTPUT, DeviceClaim
from aitbc.core.testing.snapshot import snapshot
from apps.gpu import receipts, statements
from apps.gpu.models import Device, Heartbeat, Job, Miner, Nonce
from apps.gpu.services import sweeps
from apps.gpu.tests.beats import beat, beat_values, sign_beat
from apps.gpu.tests.steps import fall_silent, lease_of, pass_time, read, refused, start, submit
from apps.trading.models import Payment

DEVICE = {"uuid": "CPU-1", "kind": "cpu", "model": "Test CPU", "memory_mb": 4096}


@pytest.fixture
def vera(db):
    """Has a key with the scope and registers by hand."""
    cast.ensure_receipt_key()
    return cast.person("vera")


@pytest.fixture
def private_key():
    return signing.new_private_key()


def profile(who, private_key, **changes):
    """A registration's body, honest but for `changes`."""
    address = signing.address_of(private_key)
    nonce = read(who.post("/v1/miners/nonce"))["nonce"]
    body = {
        "name": "vera",
        "region": "eu",
        "concurrency": 2,
        "kinds": ["bench.matmul"],
        "models": [],
        "devices": [DEVICE],
        "price": {"amount": "0.001", "asset": "AIT"},
        "address": address,
        "nonce": nonce,
        "proof": cast.sign_registration(private_key, who.principal.prefix, nonce, address),
    }
    return body | changes


# -- registration --------------------------------------------------------------------------------
def test_a_machine_registers_once_and_comes_back_as_the_same_miner(vera, private_key):
    first = vera.post("/v1/miners/register", profile(vera, private_key))
    again = vera.post("/v1/miners/register", profile(vera, private_key, name="vera 2", concurrency=5))

    assert (first.status_code, again.status_code) == (201, 200)
    made, repeated = read(first), read(again)
    assert made["id"] == repeated["id"]
    assert (made["state"], made["sequence"], made["head"]) == ("online", 0, "0x" + "00" * 32)
    assert [(d["uuid"], d["verified"]) for d in made["devices"]] == [("CPU-1", False)]
    assert made["devices"] == repeated["devices"]
    assert made["heartbeat_seconds"] == parameters.get("heartbeat_seconds")
    assert made["challenge"]["device_id"] == made["devices"][0]["id"]
    assert made["chain_id"] == settings.CHAIN_ID
    miner = Miner.objects.get()
    assert (miner.key_id, miner.owner_id, miner.name, miner.concurrency) == (
        vera.principal.key_id,
        vera.id,
        "vera 2",
        5,
    )
    assert OutboxEvent.objects.filter(event="gpu.miner_registered").count() == 2


def test_the_newest_nonce_is_taken_when_none_is_named(vera, private_key):
    vera.post("/v1/miners/nonce")
    body = profile(vera, private_key)
    del body["nonce"]

    assert vera.post("/v1/miners/register", body).status_code == 201


def test_a_nonce_works_once(vera, private_key):
    body = profile(vera, private_key)
    assert vera.post("/v1/miners/register", body).status_code == 201
    before = snapshot()

    refused(vera.post("/v1/miners/register", body), 422, "miner.nonce")
    refused(vera.post("/v1/miners/register", {k: v for k, v in body.items() if k != "nonce"}), 422, "miner.nonce")

    assert snapshot() == before


def test_two_registrations_with_one_nonce_at_once_are_one(committed_db, in_threads):
    cast.ensure_receipt_key()
    vera = cast.person("vera")
    body = profile(vera, signing.new_private_key())

    answers = in_threads(lambda _: vera.post("/v1/miners/register", body), 6)

    assert sorted(answer.status_code for answer in answers) == [201] + [422] * 5
    assert (Miner.objects.count(), Device.objects.count()) == (1, 1)


def test_a_nonce_expires(vera, private_key):
    body = profile(vera, private_key)
    Nonce.objects.update(created_at=F("created_at") - timedelta(minutes=10, seconds=1))

    refused(vera.post("/v1/miners/register", body), 422, "miner.nonce")

    assert Miner.objects.count() == 0


def test_a_nonce_of_another_key_is_refused(vera, mallory, private_key):
    stolen = read(mallory.post("/v1/miners/nonce"))["nonce"]
    address = signing.address_of(private_key)
    proof = cast.sign_registration(private_key, vera.principal.prefix, stolen, address)

    refused(vera.post("/v1/miners/register", profile(vera, private_key, nonce=stolen, proof=proof)), 422, "miner.nonce")

    assert Miner.objects.count() == 0


@pytest.mark.parametrize("what", ["another address", "another key's prefix", "another nonce", "no signature"])
def test_the_address_must_have_signed_exactly_this_registration(vera, mallory, private_key, what):
    body = profile(vera, private_key)
    address, nonce = body["address"], body["nonce"]
    forged = {
        "another address": {"address": signing.address_of(signing.new_private_key())},
        "another key's prefix": {
            "proof": cast.sign_registration(private_key, mallory.principal.prefix, nonce, address)
        },
        "another nonce": {
            "proof": cast.sign_registration(private_key, vera.principal.prefix, "0x" + "11" * 32, address)
        },
        "no signature": {"proof": "0x" + "00" * 65},
    }[what]

    response = vera.post("/v1/miners/register", body | forged)

    assert response.status_code == 422
    assert read(response)["code"] in ("miner.proof", "signing.signature")
    assert Miner.objects.count() == 0


@pytest.mark.parametrize(
    ("change", "loc"),
    [
        ({"kinds": []}, "kinds"),
        ({"kinds": ["llm.dream"]}, "kinds"),
        ({"devices": []}, "devices"),
        ({"devices": [DEVICE, DEVICE]}, "devices"),
        ({"devices": [DEVICE | {"kind": "abacus"}]}, "devices"),
        ({"devices": [DEVICE | {"memory_mb": 0}]}, "devices"),
        ({"devices": [DEVICE | {"cuda": "new"}]}, "devices"),
        ({"price": {"amount": "0"}}, "price"),
        ({"price": {"amount": "-1"}}, "price"),
        ({"concurrency": 0}, "concurrency"),
        ({"concurrency": 1001}, "concurrency"),
        ({"address": "0x12"}, "address"),
        ({"name": ""}, "name"),
        ({"surplus": 1}, "surplus"),
    ],
)
def test_a_profile_of_another_shape_is_refused(vera, private_key, change, loc):
    response = vera.post("/v1/miners/register", profile(vera, private_key, **change))

    assert loc in read(response)["errors"][0]["loc"]
    assert response.status_code == 422
    assert (Miner.objects.count(), Device.objects.count()) == (0, 0)


def test_the_scope_is_needed(db):
    reader = cast.person("reader", scopes=("jobs:read",))

    refused(reader.post("/v1/miners/nonce"), 403, "auth.scope")


def test_another_key_of_the_same_owner_is_another_miner(vera, private_key):
    vera.post("/v1/miners/register", profile(vera, private_key))
    _, token = create_key(user=vera.user, name="second", scopes=["miner"])
    second = cast.Person(vera.user, token, find_principal(token))

    refused(second.get("/v1/miners/me"), 404, "miner.unregistered")
    body = profile(second, private_key, devices=[DEVICE | {"uuid": "CPU-2"}])
    assert second.post("/v1/miners/register", body).status_code == 201
    assert Miner.objects.count() == 2


def test_registering_again_keeps_the_running_leases(alice, mike):
    lease = lease_of(alice, mike)
    start(mike, lease)

    assert cast.register_again(mike, kinds=("vision.ocr",)) is False

    assert mike.deliver(lease, MATMUL_OUTPUT).status_code == 200


# -- devices -------------------------------------------------------------------------------------
def test_a_device_that_works_elsewhere_is_taken(mike, vera, private_key):
    uuid = Device.objects.get().uuid
    before = snapshot("gpu_nonce")

    problem = refused(
        vera.post("/v1/miners/register", profile(vera, private_key, devices=[DEVICE | {"uuid": uuid}])),
        409,
        "device.taken",
    )

    assert problem["uuid"] == uuid
    assert snapshot("gpu_nonce") == before


@pytest.mark.parametrize("state", ["dead", "offline"])
def test_a_device_left_behind_may_be_taken_over(mike, vera, private_key, state):
    uuid = Device.objects.get().uuid
    Miner.objects.update(state=state)

    response = vera.post("/v1/miners/register", profile(vera, private_key, devices=[DEVICE | {"uuid": uuid}]))

    assert response.status_code == 201
    active = Device.objects.get(active=True)
    assert (active.uuid, active.miner.key_id) == (uuid, vera.principal.key_id)
    assert Device.objects.filter(active=False).count() == 1
    assert active.verified is False


def test_two_miners_claiming_one_device_at_once_do_not_both_get_it(committed_db, in_threads):
    cast.ensure_receipt_key()
    people = [cast.person(f"v{n}") for n in range(6)]
    bodies = [profile(who, signing.new_private_key()) for who in people]

    answers = in_threads(lambda n: people[n].post("/v1/miners/register", bodies[n]), 6)

    assert sorted(answer.status_code for answer in answers) == [201] + [409] * 5
    assert Device.objects.filter(active=True).count() == 1


def test_a_device_that_is_not_named_any_more_is_let_go(mike):
    old = Device.objects.get()

    cast.register_again(mike, devices=[DeviceClaim(**DEVICE)])

    old.refresh_from_db()
    assert old.active is False
    assert [d["uuid"] for d in read(mike.get("/v1/miners/me"))["devices"]] == ["CPU-1"]


def test_a_device_keeps_its_measurements_while_it_stays_the_same(mike):
    device = Device.objects.get()
    Device.objects.update(verified=True, tflops=1.5)
    claim = DeviceClaim(uuid=device.uuid, kind="cpu", model="Test CPU", memory_mb=4096)

    cast.register_again(mike, devices=[claim])
    device.refresh_from_db()
    assert (device.verified, device.tflops) == (True, 1.5)

    cast.register_again(mike, devices=[DeviceClaim(uuid=device.uuid, kind="cpu", model="Better CPU", memory_mb=4096)])
    device.refresh_from_db()
    assert (device.verified, device.tflops, device.model) == (False, None, "Better CPU")


# -- heartbeats ----------------------------------------------------------------------------------
def test_beats_are_chained_and_each_is_acknowledged_with_the_platforms_signature(mike):
    for expected in (1, 2, 3):
        values = beat_values(mike)
        answer = read(beat(mike, signed=True))
        head = statements.HEARTBEAT.hash(values)
        acknowledged = answer["acknowledgement"]
        assert (acknowledged["sequence"], acknowledged["head"]) == (expected, "0x" + head.hex())
        digest = signing.digest(statements.domain(settings.CHAIN_ID), statements.HEARTBEAT, values)
        assert signing.recover(digest, acknowledged["signature"]) == receipts.platform_signer().address

    beats = list(Heartbeat.objects.order_by("sequence"))
    assert [b.previous for b in beats] == ["0x" + "00" * 32, beats[0].head, beats[1].head]
    assert all(b.signature for b in beats)
    assert (answer["state"], answer["cancel"]) == ("online", [])
    assert Miner.objects.get().head == beats[2].head


@pytest.mark.parametrize(
    "change", [{"sequence": 3}, {"sequence": 1}, {"previous": "0x" + "11" * 32}], ids=["ahead", "again", "other chain"]
)
def test_a_beat_out_of_order_is_told_what_is_expected(mike, change):
    assert beat(mike).status_code == 200
    before = snapshot()
    row = Miner.objects.get()

    problem = refused(beat(mike, **change), 409, "heartbeat.out_of_order")

    assert problem["expected"] == {"sequence": 2, "previous": row.head}
    assert snapshot() == before


def test_one_beat_sent_six_times_at_once_is_accepted_once(committed_db, in_threads):
    mike = cast.seller("mike")
    body = {"sequence": 1, "previous": "0x" + "00" * 32}

    answers = in_threads(lambda _: mike.post("/v1/miners/heartbeat", body), 6)

    assert sorted(answer.status_code for answer in answers) == [200] + [409] * 5
    assert Heartbeat.objects.count() == 1


def test_a_signature_of_another_key_or_another_beat_is_refused(mike, nora):
    before = snapshot()

    stranger = sign_beat(nora, beat_values(mike))
    other = sign_beat(mike, beat_values(mike, running=[uuid7()]))
    for signature in (stranger, other):
        refused(beat(mike, signature=signature), 422, "heartbeat.signature")

    assert snapshot() == before


def test_samples_are_kept_with_their_device(mike):
    device = Device.objects.get()
    sample = {"device_id": str(device.pk), "utilization": 37.5, "memory_used_mb": 1024, "temperature_c": 61}

    assert beat(mike, telemetry=[sample | {"power_w": 250.25}], signed=True).status_code == 200

    device.refresh_from_db()
    assert (device.utilization, device.memory_used_mb, device.temperature_c, device.power_w) == (
        37.5,
        1024,
        61.0,
        250.25,
    )
    assert device.sampled_at is not None


def test_samples_of_another_miners_device_are_not_kept(mike, nora):
    theirs = Device.objects.get(miner=nora.miner_id)

    beat(mike, telemetry=[{"device_id": str(theirs.pk), "utilization": 99}])

    theirs.refresh_from_db()
    assert theirs.utilization is None


@pytest.mark.parametrize(
    "change",
    [
        {"utilization": 101},
        {"utilization": "high"},
        {"memory_used_mb": -1},
        {"memory_used_mb": 1.5},
        {"surplus": 1},
        {"device_id": "no"},
        {"device_id": None},
    ],
)
def test_a_sample_of_another_shape_is_refused_with_its_place(mike, change):
    before = snapshot()
    sample = {"device_id": str(Device.objects.get().pk), "utilization": 1} | change

    problem = refused(beat(mike, telemetry=[sample]), 422, "request.invalid")

    assert problem["errors"][0]["loc"][:3] == ["body", "telemetry", "0"]
    assert snapshot() == before


@pytest.mark.parametrize(
    "change",
    [
        {"memory_used_mb": 12.0},
        {"utilization": True},
        {"utilization": "7"},
        {"device_id": "urn:uuid:{}"},
        {"device_id": "{{{}}}"},
    ],
)
def test_a_sample_in_an_unusual_form_is_either_kept_or_refused(mike, change):
    device = str(Device.objects.get().pk)
    sample = {"device_id": device, "utilization": 1} | change
    sample["device_id"] = sample["device_id"].format(device) if "device_id" in change else device

    assert beat(mike, telemetry=[sample]).status_code in (200, 422)


def test_a_beat_renews_its_leases_and_names_those_to_stop(alice, nora):
    miner = cast.seller("many", concurrency=5)
    running, canceled, forgotten = (lease_of(alice, miner)["id"] for _ in range(3))
    foreign = lease_of(alice, nora)["id"]
    alice.post(f"/v1/jobs/{canceled}/cancel")
    for job in (running, forgotten):
        pass_time(job, 40)
    before = dict(Job.objects.values_list("id", "lease_expires_at"))
    unknown = str(uuid7())

    answer = read(beat(miner, running=[running, canceled, foreign, unknown]))

    assert answer["cancel"] == [canceled, foreign, unknown]
    renewed = {str(job.pk) for job in Job.objects.all() if before[job.pk] != job.lease_expires_at}
    assert renewed == {running}


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("online", "online"),
        ("suspect", "online"),
        ("dead", "online"),
        ("draining", "draining"),
        ("suspended", "suspended"),
        ("offline", "offline"),
    ],
)
def test_what_a_beat_makes_of_a_miners_state(mike, before, after):
    Miner.objects.update(state=before)

    assert read(beat(mike))["state"] == after
    assert Miner.objects.get().state == after


def test_a_key_without_a_miner_cannot_beat(vera):
    body = {"sequence": 1, "previous": "0x" + "00" * 32}

    refused(vera.post("/v1/miners/heartbeat", body), 404, "miner.unregistered")


# -- liveness ------------------------------------------------------------------------------------
def test_silence_makes_a_miner_suspect_then_dead_and_a_beat_brings_it_back(alice, mike):
    lease = lease_of(alice, mike)
    fall_silent(mike, 29)
    assert (sweeps.sweep()["suspect"], Miner.objects.get().state) == (0, "online")
    fall_silent(mike, 2)
    assert (sweeps.sweep()["suspect"], Miner.objects.get().state) == (1, "suspect")
    fall_silent(mike, 30)
    assert (sweeps.sweep()["dead"], Miner.objects.get().state) == (1, "dead")
    assert Job.objects.get().state == "queued"
    assert OutboxEvent.objects.filter(event="gpu.miner_left").count() == 1
    assert mike.poll() == []

    assert read(beat(mike, running=[lease["id"]]))["cancel"] == [lease["id"]]

    assert Miner.objects.get().state == "online"
    assert [again["attempt"] for again in mike.poll()] == [2]
    assert sweeps.sweep()["dead"] == 0


def test_after_an_outage_of_the_platform_everybody_gets_a_full_lease_of_grace(alice, mike):
    lease = lease_of(alice, mike)
    ticks.tick()
    PlatformTick.objects.update(
        at=F("at") - timedelta(seconds=100), resumed_at=F("resumed_at") - timedelta(seconds=900)
    )
    fall_silent(mike, 100)
    pass_time(lease["id"], 100)

    assert sweeps.sweep() == {"expired": 0}  # the outage still goes on: nobody ticks
    ticks.tick()
    assert sweeps.sweep() == {"expired": 0}  # it is over, and the grace begins
    assert (Miner.objects.get().state, Job.objects.get().state) == ("online", "leased")

    PlatformTick.objects.update(resumed_at=F("resumed_at") - timedelta(seconds=61))
    found = sweeps.sweep()
    assert (found["dead"], Job.objects.get().state) == (1, "queued")


def test_the_platforms_own_ticks_are_no_outage(mike):
    ticks.tick()
    PlatformTick.objects.update(at=F("at") - timedelta(seconds=14), resumed_at=F("resumed_at") - timedelta(seconds=900))
    ticks.tick()

    assert not ticks.in_grace(60)


def crowd(count):
    first = cast.seller("m0")
    row = Miner.objects.get()
    people = [cast.person(f"m{n}") for n in range(1, count)]
    for who in people:
        row.pk, row.key_id, row.owner_id = uuid7(), who.principal.key_id, who.id
        row.save(force_insert=True)
    return first


def silence(count, seconds):
    chosen = list(Miner.objects.order_by("pk").values_list("pk", flat=True)[:count])
    Miner.objects.filter(pk__in=chosen).update(last_seen_at=F("last_seen_at") - timedelta(seconds=seconds))


@pytest.mark.parametrize(
    ("silent", "mass"), [(0, False), (4, False), (5, False), (6, True), (25, True)], ids=lambda x: str(x)
)
def test_more_than_a_fifth_falling_silent_at_once_suspends_expiry(db, silent, mass):
    crowd(25)
    silence(silent, 65)

    found = sweeps.sweep()

    assert sweeps.mass_silence() is mass
    assert ("dead" not in found) is mass
    assert Miner.objects.filter(state="dead").count() == (0 if mass else silent)


def test_mass_silence_suspends_expiry_for_a_minute_and_not_for_ever(db):
    """A power cut at one large owner must not keep his jobs leased for good."""
    crowd(10)
    silence(8, 65)
    assert sweeps.sweep() == {"expired": 0}
    silence(8, 60)

    assert sweeps.sweep()["dead"] == 8
    assert Miner.objects.filter(state="online").count() == 2


# -- leaving -------------------------------------------------------------------------------------
def test_a_draining_miner_finishes_and_gets_no_more(alice):
    miner = cast.seller("many", concurrency=2)
    lease = lease_of(alice, miner)
    submit(alice)

    assert read(miner.post("/v1/miners/me/drain"))["state"] == "draining"

    assert miner.poll() == []
    assert miner.deliver(lease, MATMUL_OUTPUT).status_code == 200
    assert cast.register_again(miner) is False
    assert len(miner.poll()) == 1


def test_signing_off_frees_devices_and_leases(alice, mike, vera, private_key):
    lease = lease_of(alice, mike)
    uuid = Device.objects.get().uuid

    assert read(mike.delete("/v1/miners/me"))["state"] == "offline"

    assert Device.objects.filter(active=True).count() == 0
    assert Job.objects.get().state == "queued"
    refused(mike.deliver(lease, MATMUL_OUTPUT), 409, "lease.lost")
    body = profile(vera, private_key, devices=[DEVICE | {"uuid": uuid}])
    assert vera.post("/v1/miners/register", body).status_code == 201


def test_a_suspension_does_not_end_by_signing_off_and_registering_again(mike):
    Miner.objects.update(state="suspended")

    mike.delete("/v1/miners/me")
    cast.register_again(mike)

    assert Miner.objects.get().state == "suspended"


@pytest.mark.parametrize("state", ["dead", "suspended", "offline"])
def test_draining_changes_only_a_miner_that_works(mike, state):
    Miner.objects.update(state=state)

    assert read(mike.post("/v1/miners/me/drain"))["state"] == state


# -- capabilities --------------------------------------------------------------------------------
def test_capabilities_change_what_is_offered_from_now_on(alice, mike):
    old = submit(alice)
    changes = {"kinds": ["vision.ocr"], "models": ["b", "a"], "price": {"amount": "0.5"}, "concurrency": 7}

    shown = read(mike.put("/v1/miners/me/capabilities", changes))

    assert (shown["kinds"], shown["models"], shown["concurrency"]) == (["vision.ocr"], ["a", "b"], 7)
    assert shown["price"] == {"amount": "0.5", "asset": "AIT"}
    assert mike.poll() == []
    assert read(mike.put("/v1/miners/me/capabilities", {"kinds": ["bench.matmul"]}))["concurrency"] == 7
    assert mike.poll() == []  # 0.01 does not pay for a second any more
    mike.put("/v1/miners/me/capabilities", {"price": {"amount": "0.001"}})
    assert [lease["id"] for lease in mike.poll()] == [old["id"]]


@pytest.mark.parametrize(
    "change", [{"kinds": ["no.such"]}, {"kinds": []}, {"price": {"amount": "0"}}, {"concurrency": 0}, {"x": 1}]
)
def test_capabilities_of_another_shape_are_refused(mike, change):
    before = snapshot()

    refused(mike.put("/v1/miners/me/capabilities", change), 422, "request.invalid")

    assert snapshot() == before


def test_in_production_a_clients_code_needs_a_sandbox_that_isolates_it(vera, private_key, settings):
    settings.DEVELOPMENT = False
    both = ["bench.matmul", "onnx.infer"]

    refused(vera.post("/v1/miners/register", profile(vera, private_key, kinds=both)), 422, "request.invalid")
    assert Miner.objects.count() == 0
    first_party = profile(vera, private_key, kinds=["bench.matmul"])
    assert vera.post("/v1/miners/register", first_party).status_code == 201
    refused(vera.put("/v1/miners/me/capabilities", {"kinds": both}), 422, "request.invalid")
    isolated = profile(vera, private_key, kinds=both, sandbox="bubblewrap")
    assert vera.post("/v1/miners/register", isolated).status_code == 200
    assert vera.put("/v1/miners/me/capabilities", {"kinds": both}).status_code == 200


# -- what a miner reads --------------------------------------------------------------------------
def test_a_miner_sees_the_jobs_it_holds_or_held(alice, mike, nora):
    first, second = (lease_of(alice, miner)["id"] for miner in (mike, nora))
    mike.post(f"/v1/miners/{first}/start", {"lease_token": str(Job.objects.get(pk=first).lease_token)})

    assert [job["id"] for job in read(mike.get("/v1/miners/me/jobs"))["items"]] == [first]
    assert [job["id"] for job in read(nora.get("/v1/miners/me/jobs?state=leased"))["items"]] == [second]
    assert read(mike.get("/v1/miners/me/jobs?state=leased"))["items"] == []


def test_a_miners_jobs_come_in_pages_newest_first(alice, mike):
    ids = []
    for _ in range(3):
        lease = lease_of(alice, mike)
        mike.deliver(lease, MATMUL_OUTPUT)
        ids.insert(0, lease["id"])

    first = read(mike.get("/v1/miners/me/jobs?limit=2"))
    second = read(mike.get(f"/v1/miners/me/jobs?limit=2&cursor={first['next']}"))

    assert [job["id"] for job in first["items"]] == ids[:2]
    assert ([job["id"] for job in second["items"]], second["next"]) == (ids[2:], None)
    refused(mike.get("/v1/miners/me/jobs?cursor=x"), 422, "request.invalid")


def test_earnings_equal_the_released_payments_with_the_maturing_part_apart(alice, mike, nora):
    for maturing_seconds in (0, 600, 600):
        parameters.change(name="maturing_seconds", value=maturing_seconds, by=None)
        lease = lease_of(alice, mike)
        start(mike, lease)
        pass_time(lease["id"], 2)
        mike.deliver(lease, MATMUL_OUTPUT)
    lease = lease_of(alice, nora)
    nora.deliver(lease, MATMUL_OUTPUT)
    mine = Payment.objects.filter(provider=mike.id).order_by("id")
    assert db.value("SELECT payments_mature(100)") == 1

    shown = read(mike.get("/v1/miners/me/earnings"))

    assert shown["jobs"] == 3
    assert money.units(shown["released"]["amount"], 18) == mine[0].released
    assert money.units(shown["maturing"]["amount"], 18) == mine[1].released + mine[2].released
    assert money.units(shown["fees"]["amount"], 18) == sum(payment.fee for payment in mine)
    assert mine[0].released > 0


def test_earnings_are_those_of_the_period(alice, mike):
    paid, moments = [], []
    for seconds, days in ((1, 0), (2, 10), (3, 20)):
        lease = lease_of(alice, mike)
        start(mike, lease)
        pass_time(lease["id"], 5)
        mike.deliver(lease, MATMUL_OUTPUT, claimed_ms=seconds * 1000)
        Job.objects.filter(pk=lease["id"]).update(finished_at=F("finished_at") - timedelta(days=days))
        paid.append(Payment.objects.get(job=lease["id"]).released)
        moments.append(Job.objects.get(pk=lease["id"]).finished_at)
    moment = moments[1].isoformat().replace("+00:00", "Z")

    since = read(mike.get(f"/v1/miners/me/earnings?from={moment}"))
    until = read(mike.get(f"/v1/miners/me/earnings?to={moment}"))

    assert paid == [975 * 10**12, 1950 * 10**12, 2925 * 10**12]
    assert (since["jobs"], since["maturing"]["amount"]) == (2, "0.002925")
    assert (until["jobs"], until["maturing"]["amount"]) == (1, "0.002925")


@pytest.mark.parametrize("path", ["me", "me/jobs", "me/earnings"])
def test_a_key_without_a_miner_has_nothing_to_read(vera, path):
    response = vera.get(f"/v1/miners/{path}")

    refused(response, 404, "miner.unregistered")


def test_a_revoked_key_stops_at_once(alice, mike):
    from aitbc.accounts.keys import revoke_key

    lease = lease_of(alice, mike)
    revoke_key(key_id=mike.principal.key_id)

    refused(mike.deliver(lease, MATMUL_OUTPUT), 401, "auth.invalid_key")
    refused(mike.post("/v1/miners/poll", {}), 401, "auth.invalid_key")
