"""Jobs under an order of the market: on its devices, within its time, and paid by it."""

from datetime import timedelta
from uuid import UUID, uuid4

import pytest
from django.db.models import F

from aitbc.core import db as database
from aitbc.core.ids import uuid7
from aitbc.core.testing import cast
from aitbc.core.testing.cast import job_body
from apps.gpu.models import Device, Job, Occupancy, QueuedJob
from apps.gpu.services import sweeps
from apps.gpu.tests.steps import fail, read, refused, start, submit
from apps.gpu.tests.test_claiming import claims
from apps.trading.models import Payment, Transfer
from apps.trading.services.audit import audit


def let(miner, client, *, devices: int = 1, begins: int = -60, ends: int = 600) -> UUID:
    """An order that occupies so many devices of the miner, from and until seconds from now."""
    holder = uuid4()
    cards = list(Device.objects.filter(miner_id=miner.miner_id).order_by("id").values_list("pk", flat=True))
    code = database.value(
        """SELECT gpu_occupy(%s, %s, %s::uuid[], clock_timestamp() + %s * interval '1 second',
                             clock_timestamp() + %s * interval '1 second')""",
        (holder, client.id, cards[:devices], begins, ends),
    )
    assert code == "ok"
    return holder


def under(order: UUID, **changes) -> dict:
    body = job_body(order_id=str(order), **changes)
    del body["max_price"]
    return body


def submit_under(client, order, **changes) -> str:
    response = client.post("/v1/jobs", under(order, **changes))
    assert response.status_code == 201, response.content
    return read(response)["id"]


def end(order: UUID) -> None:
    assert database.value("SELECT gpu_vacate(%s, clock_timestamp())", (order,)) >= 1


@pytest.fixture
def rig(db):
    """Two devices and four slots."""
    miner = cast.seller("rig", concurrency=4)
    Device.objects.create(miner_id=miner.miner_id, uuid="second", kind="cpu", model="x", memory_mb=1)
    return miner


def test_a_job_of_an_order_runs_on_its_miner_and_costs_nothing(alice, rig, nora):
    order = let(rig, alice)
    transfers = Transfer.objects.count()
    job = submit_under(alice, order)

    assert claims(nora) == []
    (lease,) = rig.poll()
    assert (lease["id"], lease["unit_price"]["amount"]) == (job, "0")
    assert 590_000 < lease["max_units"] <= 600_000
    answer = read(rig.deliver(lease, cast.MATMUL_OUTPUT))

    receipt = answer["receipt"]
    assert (receipt["total"]["amount"], receipt["fee"]["amount"], receipt["statement"]["unit_price"]) == ("0", "0", "0")
    assert read(alice.post("/v1/receipts/verify", receipt))["valid"] is True
    shown = read(alice.get(f"/v1/jobs/{job}"))
    assert (shown["state"], shown["order_id"], shown["payment"]) == ("completed", str(order), None)
    assert [item["id"] for item in read(alice.get("/v1/jobs"))["items"]] == [job]
    assert [item["id"] for item in read(rig.get("/v1/miners/me/jobs"))["items"]] == [job]
    assert (Transfer.objects.count(), Payment.objects.count(), audit()) == (transfers, 0, [])


def test_it_starts_reports_progress_and_is_canceled_like_any_job(alice, rig):
    job = submit_under(alice, let(rig, alice))
    (lease,) = rig.poll()
    start(rig, lease)
    body = {"lease_token": lease["lease_token"], "percent": 50}
    assert rig.post(f"/v1/miners/{job}/progress", body).status_code == 200

    assert read(alice.post(f"/v1/jobs/{job}/cancel"))["state"] == "canceled"
    assert Payment.objects.count() == 0


@pytest.mark.parametrize(("begins", "ends", "status", "code"), [
    (60, 600, 409, "order.not_active"),
    (-600, -60, 409, "order.not_active"),
])  # fmt: skip
def test_an_order_that_has_not_begun_or_is_over_runs_nothing(alice, rig, begins, ends, status, code):
    order = let(rig, alice, begins=begins, ends=ends)

    refused(alice.post("/v1/jobs", under(order)), status, code)

    assert (Job.objects.count(), QueuedJob.objects.count()) == (0, 0)


def test_anothers_order_is_unknown(alice, mallory, rig):
    order = let(rig, alice)

    refused(mallory.post("/v1/jobs", under(order)), 404, "order.unknown")
    refused(alice.post("/v1/jobs", under(uuid4())), 404, "order.unknown")

    assert Job.objects.count() == 0


def test_a_job_names_its_price_or_its_order_and_never_both(alice, rig):
    order = str(let(rig, alice))

    refused(alice.post("/v1/jobs", job_body(order_id=order)), 422, "request.invalid")
    refused(alice.post("/v1/jobs", under(order, offer_id=str(uuid4()))), 422, "request.invalid")
    unpaid = job_body()
    del unpaid["max_price"]
    refused(alice.post("/v1/jobs", unpaid), 422, "request.invalid")

    assert Job.objects.count() == 0


def test_a_batch_may_mix_them(alice, rig):
    order = let(rig, alice)
    paid, free, lost = (str(uuid7()) for _ in range(3))
    jobs = [job_body(id=paid), under(order, id=free), under(uuid4(), id=lost)]

    items = read(alice.post("/v1/jobs/batch", {"jobs": jobs}))["items"]

    assert [item["status"] for item in items] == [201, 201, 404]
    assert [item["job"]["payment"] is None for item in items[:2]] == [False, True]
    assert alice.post("/v1/jobs", jobs[1]).status_code == 200
    refused(alice.post("/v1/jobs", under(let(rig, alice, begins=700, ends=800), id=free)), 409, "job.exists")


@pytest.mark.parametrize(("devices", "pool", "own"), [(1, 2, 2), (2, 0, 4)])
def test_the_pool_gets_the_slots_of_free_devices_only(alice, mallory, rig, devices, pool, own):
    order = let(rig, alice, devices=devices)
    for _ in range(5):
        submit(mallory)
    mine = {submit_under(alice, order) for _ in range(5)}

    first, second = claims(rig, max_jobs=64), claims(rig, max_jobs=64)

    assert len(first) == 4
    assert len(set(first) & mine) == own
    assert second == []
    assert database.value("SELECT count(*) FROM gpu_slots((SELECT m FROM gpu_miner m WHERE id = %s))",
                          (rig.miner_id,)) == (2 if pool else 1)  # fmt: skip


def test_a_miner_that_is_let_whole_is_not_woken_for_the_pool(alice, mallory, rig):
    let(rig, alice, devices=2)
    submit(mallory)

    assert database.value("SELECT gpu_has_work(m, NULL) FROM gpu_miner m WHERE id = %s", (rig.miner_id,)) is False
    assert claims(rig) == []


def test_an_order_of_one_of_two_devices_has_a_slot_where_there_is_only_one(alice, mallory):
    rig = cast.seller("small", concurrency=1)
    Device.objects.create(miner_id=rig.miner_id, uuid="second", kind="cpu", model="x", memory_mb=1)
    order = let(rig, alice)
    submit(mallory)

    assert claims(rig) == []  # half a slot is none
    job = submit_under(alice, order)
    assert claims(rig) == [job]


def test_when_an_order_ends_its_queued_jobs_expire_and_running_ones_are_canceled(alice, rig):
    order = let(rig, alice)
    running = submit_under(alice, order)
    (lease,) = rig.poll()
    start(rig, lease)
    waiting = submit_under(alice, order)
    assert sweeps.sweep()["expired"] == 0
    end(order)

    assert claims(rig) == []
    assert sweeps.sweep()["expired"] == 2

    shown = {job: read(alice.get(f"/v1/jobs/{job}")) for job in (running, waiting)}
    assert [shown[job]["state"] for job in (running, waiting)] == ["canceled", "expired"]
    assert {job["error"]["code"] for job in shown.values()} == {"order.ended"}
    assert shown[waiting]["error"]["message"] == "the order that pays for this job is over"
    refused(rig.deliver(lease, cast.MATMUL_OUTPUT), 409, "lease.lost")
    assert (QueuedJob.objects.count(), sweeps.sweep()["expired"], audit()) == (0, 0, [])


def test_a_clients_fault_ends_a_job_that_no_other_miner_may_run(alice, rig):
    job = submit_under(alice, let(rig, alice))
    (lease,) = rig.poll()

    assert fail(rig, lease, "runtime.invalid_input").status_code == 200

    found = Job.objects.get(pk=job)
    assert (found.state, found.error_code, found.units_ms) == ("failed", "runtime.invalid_input", 0)
    assert (Payment.objects.count(), QueuedJob.objects.count()) == (0, 0)


def test_a_lost_lease_returns_to_the_order(alice, rig):
    job = submit_under(alice, let(rig, alice))
    rig.poll()
    Job.objects.update(lease_expires_at=F("lease_expires_at") - timedelta(minutes=5))

    sweeps.sweep()

    assert Job.objects.get(pk=job).state == "queued"
    assert claims(rig) == [job]
    assert Occupancy.objects.count() == 1
