"""A job on a chosen offer, end to end: only that miner gets it, at the price that was shown or less."""

from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest

from aitbc.core.ids import uuid7
from aitbc.core.testing.cast import MATMUL_OUTPUT, job_body
from apps.gpu.models import Job, Miner, QueuedJob
from apps.gpu.services import miners
from apps.marketplace.tests.conftest import OFFERS, price, read
from apps.trading.models import Payment
from apps.trading.services.audit import audit

pytestmark = pytest.mark.django_db


def submit(alice, offer, status=201, **changes):
    return read(alice.post("/v1/jobs", job_body(offer_id=offer["id"], **changes)), status)


def refused(alice, offer, status, **changes):
    """The problem of a submission that must leave no job, no queue row and no hold."""
    problem = submit(alice, offer, status, **changes)
    assert (Job.objects.count(), QueuedJob.objects.count(), Payment.objects.count()) == (0, 0, 0)
    return problem


def test_only_the_offers_miner_gets_the_job_and_is_paid_the_offers_price(alice, mike, nora, offer_of):
    """Nora's price is the same and she polls first; Mike's offer is below what he asks of other jobs."""
    offer = offer_of(mike, "0.0004")
    job = submit(alice, offer)
    assert (job["offer_id"], job["state"]) == (offer["id"], "queued")

    assert nora.poll(max_jobs=5) == []
    (lease,) = mike.poll(max_jobs=5)
    assert (lease["id"], lease["unit_price"]) == (job["id"], {"amount": "0.0004", "asset": "AIT"})

    done = read(mike.deliver(lease, MATMUL_OUTPUT))
    receipt = read(alice.get(f"/v1/jobs/{job['id']}/receipt"))
    assert (done["job"]["state"], done["job"]["miner_id"]) == ("completed", str(mike.miner_id))
    assert int(receipt["statement"]["unit_price"]) == 4 * 10**14
    payment = Payment.objects.get()
    assert payment.released + payment.fee == -(-receipt["units"] * 4 * 10**14 // 1000)
    assert payment.held == payment.released + payment.fee + payment.refunded == 10**16
    assert read(alice.post("/v1/receipts/verify", receipt))["valid"] is True
    assert audit() == []


def test_a_price_raised_after_submission_is_not_charged(alice, mike, offer_of):
    offer = offer_of(mike, "0.0004")
    submit(alice, offer)
    read(mike.patch(f"{OFFERS}/{offer['id']}", {"price": price("0.009")}))
    Miner.objects.filter(pk=mike.miner_id).update(price=9 * 10**15)

    (lease,) = mike.poll()

    assert lease["unit_price"]["amount"] == "0.0004"
    assert lease["max_units"] == 25_000  # milliseconds that 0.01 pays for


def test_a_miner_that_has_become_cheaper_than_its_offer_charges_the_lower_price(alice, mike, offer_of):
    submit(alice, offer_of(mike, "0.002"))

    (lease,) = mike.poll()

    assert lease["unit_price"]["amount"] == "0.001"


def test_a_job_whose_escrow_pays_a_second_of_the_offer_but_not_of_the_miners_own_price_runs(alice, mike, offer_of):
    job = submit(alice, offer_of(mike, "0.0004"), max_price={"amount": "0.0005"})

    (lease,) = mike.poll()

    assert (lease["id"], lease["max_units"]) == (job["id"], 1250)


def test_a_job_without_an_offer_pays_the_miners_own_price(alice, mike, offer_of):
    offer_of(mike, "0.0004")
    read(alice.post("/v1/jobs", job_body()), 201)

    (lease,) = mike.poll()

    assert lease["unit_price"]["amount"] == "0.001"


def test_a_queued_job_survives_the_end_of_its_offer(alice, mike, offer_of):
    offer = offer_of(mike, "0.0004")
    job = submit(alice, offer)

    read(mike.delete(f"{OFFERS}/{offer['id']}"))

    assert [lease["id"] for lease in mike.poll()] == [job["id"]]


def test_an_unknown_offer_is_not_found(alice, mike):
    assert refused(alice, {"id": str(uuid4())}, 404)["code"] == "offer.unknown"


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"state": "paused"}, "the offer is paused: its seller decided so"),
        ({"available_from": (datetime.now(UTC) + timedelta(hours=1)).isoformat()}, "begins later"),
    ],
)
def test_an_offer_that_is_not_for_sale_now_is_refused_with_the_reason(alice, mike, offer_of, body, words):
    offer = offer_of(mike)
    read(mike.patch(f"{OFFERS}/{offer['id']}", body))

    problem = refused(alice, offer, 409)

    assert problem["code"] == "offer.not_available"
    assert words in problem["detail"]


def test_an_offer_whose_miner_has_just_left_is_refused_before_any_event_arrives(alice, mike, offer_of):
    offer = offer_of(mike)
    miners.drain(key=mike.principal.key_id)
    assert read(alice.get(f"{OFFERS}/{offer['id']}"))["state"] == "listed"

    assert refused(alice, offer, 409)["code"] == "offer.not_available"


def test_an_offer_refuses_a_kind_that_it_does_not_run(alice, mike, offer_of):
    Miner.objects.filter(pk=mike.miner_id).update(kinds=["bench.matmul", "vision.ocr"])
    offer = offer_of(mike, kinds=["vision.ocr"])

    problem = refused(alice, offer, 422)

    assert problem["errors"][0]["loc"] == ["body", "kind"]


def test_a_max_price_below_one_second_of_the_offer_is_refused(alice, mike, offer_of):
    problem = refused(alice, offer_of(mike, "0.5"), 422)

    assert problem["errors"][0]["loc"] == ["body", "max_price"]


def test_one_bad_offer_does_not_sink_a_batch(alice, mike, offer_of):
    offer = offer_of(mike, "0.0004")
    jobs = [job_body(id=str(uuid7()), offer_id=o) for o in (offer["id"], str(uuid4()))]

    items = read(alice.post("/v1/jobs/batch", {"jobs": jobs}), 207)["items"]

    assert [item["status"] for item in items] == [201, 404]
    assert items[0]["job"]["offer_id"] == offer["id"]
    assert [job.listed_price for job in Job.objects.all()] == [4 * 10**14]


def test_a_repeat_is_answered_as_before_although_the_offer_has_ended_since(alice, mike, offer_of):
    """By its Idempotency-Key, and in a batch by the job's own id."""
    offer = offer_of(mike, "0.0004")
    body = job_body(offer_id=offer["id"], id=str(uuid7()))
    first = alice.post("/v1/jobs", body, idempotency_key="one")
    read(mike.delete(f"{OFFERS}/{offer['id']}"))

    again = alice.post("/v1/jobs", body, idempotency_key="one")
    (item,) = read(alice.post("/v1/jobs/batch", {"jobs": [body]}), 207)["items"]

    assert (first.status_code, again.status_code, again.content) == (201, 201, first.content)
    assert (item["status"], item.get("job", {}).get("id")) == (200, body["id"])
    assert Job.objects.count() == 1
