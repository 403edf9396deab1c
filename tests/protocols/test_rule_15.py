"""Rule 15: a failure has a fault, and the fault decides who pays."""

import pytest

from apps.gpu.runtimes.contract import FAULTS
from apps.gpu.tests.steps import fail, pass_time, start, submit
from apps.trading.models import Payment
from apps.trading.services.audit import audit


def attempt(miner, job, code, *, seconds=3):
    (lease,) = miner.poll()
    assert lease["id"] == job["id"]
    start(miner, lease)
    pass_time(job["id"], seconds)
    assert fail(miner, lease, code).status_code == 200


@pytest.mark.parametrize(("code", "fault"), [(str(code), fault) for code, fault in FAULTS.items()])
def test_a_client_pays_for_its_own_fault_only_and_only_when_two_miners_saw_it(alice, mike, nora, code, fault):
    job = submit(alice)
    attempt(mike, job, code)
    assert Payment.objects.get().state == "escrowed"
    attempt(nora, job, code)

    payment = Payment.objects.get()
    if fault == "client":
        assert payment.provider_id == nora.id
        assert payment.released + payment.fee == pytest.approx(3 * 10**15, rel=0.34)
    else:
        assert payment.state == "escrowed"
        attempt(mike, job, code)
        payment.refresh_from_db()
        assert (payment.state, payment.refunded) == ("refunded", payment.held)
    assert audit() == []


def test_one_miners_word_is_not_enough(alice, mike):
    job = submit(alice)
    attempt(mike, job, "runtime.memory")

    assert mike.poll() == []
    alice.post(f"/v1/jobs/{job['id']}/cancel")
    assert Payment.objects.get().state == "refunded"
