"""What clients and providers hear when a job ends, and that nothing is written for who does not listen."""

import pytest

from aitbc.core import db
from aitbc.core.models import OutboxEvent
from aitbc.core.testing.cast import MATMUL_OUTPUT
from aitbc.webhooks.events import CATALOGUE
from apps.gpu.services import sweeps
from apps.gpu.tests.steps import fail, lease_of, pass_time, start, submit


def listen(*people):
    for person in people:
        db.rows("SELECT webhooks_create(%s, 'https://example.com/', '{}', 'nonce')", (person.id,))


def told():
    found = OutboxEvent.objects.filter(event__in=CATALOGUE).order_by("id")
    return {record.event: (record.payload["owners"], record.payload["data"]) for record in found}


def complete(alice, mike):
    lease = lease_of(alice, mike)
    start(mike, lease)
    pass_time(lease["id"], 2)
    assert mike.deliver(lease, MATMUL_OUTPUT).status_code == 200
    return lease["id"]


def test_a_completed_job_and_its_payment(alice, mike):
    listen(alice)
    job = complete(alice, mike)

    events = told()

    assert set(events) == {"job.completed", "payment.partially_released"}
    owners, data = events["job.completed"]
    assert (owners, data["id"], data["state"], data["error"]) == ([str(alice.id)], job, "completed", None)
    assert "input" not in data
    owners, data = events["payment.partially_released"]
    assert (owners, data["job"], data["held"]) == (
        [str(alice.id), str(mike.id)],
        job,
        {"amount": "0.01", "asset": "AIT"},
    )
    parts = [float(data[name]["amount"]) for name in ("released", "fee", "refunded")]
    assert sum(parts) == pytest.approx(0.01)


def test_a_provider_hears_of_the_payment_alone(alice, mike):
    listen(mike)
    complete(alice, mike)
    assert set(told()) == {"payment.partially_released"}


def test_nobody_listens_nothing_is_written(alice, mike, nora):
    listen(nora)
    complete(alice, mike)
    assert told() == {}


def test_a_failed_job_with_its_error(alice, mike):
    listen(alice)
    lease = lease_of(alice, mike)
    start(mike, lease)
    fail(mike, lease, "disk.full", retryable=False)
    events = told()
    assert set(events) == {"job.failed", "payment.refunded"}
    assert events["job.failed"][1]["error"] == {"code": "disk.full", "message": "because of disk.full"}


def test_a_canceled_and_an_expired_job(alice):
    listen(alice)
    canceled, expired = submit(alice)["id"], submit(alice)["id"]
    alice.post(f"/v1/jobs/{canceled}/cancel")
    pass_time(expired, 10_000)
    sweeps.sweep()
    events = told()
    assert set(events) == {"job.canceled", "job.expired", "payment.refunded", "payment.expired"}
    assert (events["job.canceled"][1]["id"], events["job.expired"][1]["id"]) == (canceled, expired)
