"""The main job over HTTP: submit, poll, result, read; each refusal also changes nothing."""

import orjson
import pytest

from aitbc.core.testing import cast
from aitbc.core.testing.cast import AIT, MATMUL_OUTPUT, job_body
from apps.trading.models import Payment
from apps.trading.services.audit import audit

pytestmark = pytest.mark.django_db


@pytest.fixture
def alice():
    alice = cast.person("alice")
    cast.fund(alice.id, AIT)
    return alice


@pytest.fixture
def mike():
    return cast.seller("mike")


def read(response):
    return orjson.loads(response.content)


def submit(alice, **changes):
    response = alice.post("/v1/jobs", job_body(**changes))
    assert response.status_code == 201, response.content
    return read(response)


def test_a_job_is_escrowed_leased_finished_and_paid(alice, mike):
    job = submit(alice)
    assert job["state"] == "queued"
    assert job["payment"]["held"] == {"amount": "0.01", "asset": "AIT"}
    balance = read(alice.get("/v1/accounts"))["items"][0]
    assert (balance["available"], balance["held"]) == ("0.99", "0.01")

    (lease,) = mike.poll()
    assert lease["id"] == job["id"]
    response = mike.deliver(lease, MATMUL_OUTPUT)
    assert response.status_code == 200, response.content
    answer = read(response)
    assert answer["job"]["state"] == "completed"

    receipt = read(alice.get(f"/v1/jobs/{job['id']}/receipt"))
    verdict = read(alice.post("/v1/receipts/verify", receipt))
    assert verdict == {
        "valid": True,
        "checks": {"signature": True, "counter_signature": True, "price": True, "merkle": None},
        "reason": None,
    }
    result = read(alice.get(f"/v1/jobs/{job['id']}/result"))
    assert result["output"] == MATMUL_OUTPUT
    payment = Payment.objects.get(job=job["id"])
    assert payment.held == payment.released + payment.fee + payment.refunded
    assert payment.released + payment.fee == -(-receipt["units"] * 10**15 // 1000)
    assert audit() == []
