"""Rule 11: price and limits are agreed at the lease, and the escrow is never exceeded."""

import pytest

from aitbc.accounts import parameters
from aitbc.core.testing import cast
from aitbc.core.testing.cast import AIT, MATMUL_OUTPUT
from apps.gpu.models import Job, Miner
from apps.gpu.services import sweeps
from apps.gpu.tests.steps import fail, lease_of, pass_time, read, refused, start, submit
from apps.trading.models import Payment
from apps.trading.services.audit import audit


def test_the_price_of_the_lease_holds_whatever_the_miner_asks_later(alice, mike):
    lease = lease_of(alice, mike)
    start(mike, lease)
    pass_time(lease["id"], 2)
    Miner.objects.update(price=AIT)

    receipt = read(mike.deliver(lease, MATMUL_OUTPUT))["receipt"]

    assert receipt["statement"]["unit_price"] == str(10**15)
    assert Payment.objects.get().released < 10**16


# A rounded quotient would allow a millisecond more than the escrow pays for.
@pytest.mark.parametrize(
    ("price", "max_price"),
    [(10**18, 10**21 - 1), (10**18, 10**18), (3, 10), (7 * 10**17 + 1, 10**20 + 7), (1, 3), (10**15, 10**15 + 999)],
)
def test_a_job_that_runs_to_its_limit_costs_no_more_than_its_escrow(db, price, max_price):
    from aitbc.core import money

    alice, mike = cast.person("alice"), cast.seller("mike", price=money.show(price, 18))
    cast.fund(alice.id, max_price)
    lease = lease_of(alice, mike, max_price={"amount": money.show(max_price, 18)})
    assert lease["max_units"] == min(max_price * 1000 // price, 3_600_000)
    start(mike, lease)
    pass_time(lease["id"], 4000)

    response = mike.deliver(lease, MATMUL_OUTPUT)

    assert response.status_code == 200, response.content
    payment, units = Payment.objects.get(), Job.objects.get().units_ms
    total = payment.released + payment.fee
    assert units == lease["max_units"]
    assert total == -(-units * price // 1000) <= max_price
    assert payment.fee == -(-total * 250 // 10_000)
    assert audit() == []


def test_the_fee_of_the_lease_holds_whatever_is_governed_later(alice, mike):
    lease = lease_of(alice, mike)
    parameters.change(name="fee_bps", value=2000, by=None)
    start(mike, lease)
    pass_time(lease["id"], 4)
    assert mike.deliver(lease, MATMUL_OUTPUT, claimed_ms=4000).status_code == 200
    assert (Payment.objects.get().released, Payment.objects.get().fee) == (39 * 10**14, 10**14)

    lease = lease_of(alice, mike)
    parameters.change(name="fee_bps", value=0, by=None)
    start(mike, lease)
    pass_time(lease["id"], 4)
    assert alice.post(f"/v1/jobs/{lease['id']}/cancel").status_code == 200
    payment = Payment.objects.get(job=lease["id"])
    assert payment.fee == -(-(payment.released + payment.fee) * 2000 // 10_000) > 0


def test_the_fee_of_a_failure_is_that_of_its_lease(alice, mike, nora):
    job = submit(alice)
    for miner, bps in ((mike, 0), (nora, 2000)):
        (lease,) = miner.poll()
        parameters.change(name="fee_bps", value=bps, by=None)
        start(miner, lease)
        pass_time(job["id"], 3)
        assert fail(miner, lease, "runtime.memory").status_code == 200
    payment = Payment.objects.get()
    assert (payment.state, payment.provider_id, payment.fee) == ("partially_released", nora.id, 0)


def test_the_limit_is_enforced_as_a_kill(alice, mike):
    lease = lease_of(alice, mike, max_price={"amount": "0.002"})
    start(mike, lease)
    pass_time(lease["id"], 8)

    assert sweeps.sweep()["overtime"] == 1
    refused(mike.deliver(lease, MATMUL_OUTPUT), 409, "lease.lost")


def test_holds_have_no_timer_the_state_of_the_job_alone_resolves_them(alice, mike):
    lease = lease_of(alice, mike, ttl_seconds=1, max_price={"amount": "0.9"})
    start(mike, lease)
    for _ in range(3):
        pass_time(lease["id"], 300)
        mike.post(f"/v1/miners/{lease['id']}/progress", {"lease_token": lease["lease_token"]})
        sweeps.sweep()
    assert (Payment.objects.get().state, Job.objects.get().state) == ("escrowed", "running")

    assert mike.deliver(lease, MATMUL_OUTPUT).status_code == 200
    assert Payment.objects.get().state != "escrowed"


def test_a_sweep_resolves_the_hold_of_a_final_job(alice):
    submit(alice)
    Job.objects.update(state="canceled", finished_at="2026-01-01T00:00:00Z")

    assert sweeps.sweep()["holds"] == 1
    assert Payment.objects.get().state == "refunded"


def test_and_says_of_one_that_expired_what_it_is(alice):
    jobs = [submit(alice)["id"] for _ in range(2)]
    for job, state in zip(jobs, ("expired", "failed"), strict=True):
        Job.objects.filter(pk=job).update(state=state, finished_at="2026-01-01T00:00:00Z")

    assert sweeps.sweep()["holds"] == 2
    assert [Payment.objects.get(job=job).state for job in jobs] == ["expired", "refunded"]
