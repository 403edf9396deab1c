"""Whose fault a failure is decides who pays (protocols 15); afterwards every coin is accounted for."""

import pytest

from aitbc.core.testing import cast
from aitbc.core.testing.snapshot import snapshot
from apps.gpu.models import Attempt, Job, Miner, QueuedJob
from apps.gpu.services import cancellation, sweeps
from apps.gpu.tests.steps import fail, lease_of, pass_time, read, refused, start, submit
from apps.trading.models import Account, Payment
from apps.trading.services.audit import audit

PRICE = 10**15  # of the cast's miners, per second
CLIENT_CODES = (
    "runtime.timeout",
    "runtime.memory",
    "runtime.output_too_large",
    "runtime.invalid_model",
    "runtime.invalid_input",
)
PROVIDER_CODES = ("runtime.crashed", "runtime.unknown", "disk.full")


@pytest.fixture(autouse=True)
def _the_books_balance(db):
    """After every story of this file, whatever happened in it."""
    yield
    assert audit() == []
    assert Account.objects.filter(held__gt=0).count() == Payment.objects.filter(state="escrowed").count()


def payment_of(job) -> Payment:
    return Payment.objects.get(job=job["id"])


def maturing(person) -> int:
    account = Account.objects.filter(owner=person.id, kind="maturing").first()
    return 0 if account is None else account.posted


def assert_refunded(job, state="refunded"):
    payment = payment_of(job)
    assert (payment.state, payment.refunded, payment.released, payment.fee) == (state, payment.held, 0, 0)
    assert payment.provider_id is None


# -- the provider's fault ------------------------------------------------------------------------
@pytest.mark.parametrize("code", PROVIDER_CODES)
def test_a_providers_fault_is_retried_and_then_refunded(alice, mike, code):
    job = submit(alice)
    for attempt in (1, 2, 3):
        (lease,) = mike.poll()
        start(mike, lease)
        pass_time(job["id"], 2)
        shown = read(fail(mike, lease, code))
        assert shown["state"] == ("queued" if attempt < 3 else "failed")

    assert shown["error"] == {"code": code, "message": f"because of {code}"}
    assert_refunded(job)
    assert maturing(mike) == 0
    assert list(Attempt.objects.values_list("fault", flat=True)) == ["provider"] * 3
    assert QueuedJob.objects.count() == 0


def test_a_providers_fault_that_cannot_be_retried_fails_at_once(alice, mike):
    lease = lease_of(alice, mike)

    shown = read(fail(mike, lease, "runtime.crashed", retryable=False))

    assert shown["state"] == "failed"
    assert_refunded(lease)


# -- the client's fault --------------------------------------------------------------------------
@pytest.mark.parametrize("code", CLIENT_CODES)
def test_a_clients_fault_is_paid_when_a_second_miner_reproduces_it(alice, mike, nora, code):
    job = submit(alice, max_price={"amount": "0.02"})
    (lease,) = mike.poll()
    start(mike, lease)
    pass_time(job["id"], 5)
    assert read(fail(mike, lease, code, retryable=False))["state"] == "queued"
    assert mike.poll() == []  # the first one is not asked again

    (lease,) = nora.poll()
    start(nora, lease)
    pass_time(job["id"], 3)
    shown = read(fail(nora, lease, code, retryable=False))

    assert (shown["state"], shown["error"]["code"]) == ("failed", code)
    payment = payment_of(job)
    units = Job.objects.get().units_ms
    assert 3000 <= units < 4000  # of the second miner, who showed it
    total = units * PRICE // 1000
    assert (payment.released + payment.fee, payment.refunded) == (total, 2 * 10**16 - total)
    assert payment.fee == -(-total * 250 // 10_000)
    assert payment.provider_id == nora.id
    assert (maturing(nora), maturing(mike)) == (payment.released, 0)


def test_the_metered_part_of_a_clients_fault_stays_within_the_escrow(alice, mike, nora):
    job = submit(alice, max_price={"amount": "0.003"})
    for miner in (mike, nora):
        (lease,) = miner.poll()
        start(miner, lease)
        pass_time(job["id"], 100)
        fail(miner, lease, "runtime.timeout")

    payment = payment_of(job)
    assert (payment.state, payment.released + payment.fee, payment.refunded) == ("released", 3 * PRICE, 0)


def test_another_code_is_no_reproduction(alice, mike, nora):
    job = submit(alice)
    for miner, code in ((mike, "runtime.memory"), (nora, "runtime.invalid_model"), (mike, "runtime.timeout")):
        (lease,) = miner.poll()
        start(miner, lease)
        pass_time(job["id"], 1)
        shown = read(fail(miner, lease, code))

    assert (shown["state"], shown["error"]["code"]) == ("failed", "runtime.timeout")
    assert_refunded(job)


def test_a_miner_cannot_reproduce_itself_by_coming_round_again(alice, mike, nora):
    job = submit(alice)
    (lease,) = mike.poll()
    fail(mike, lease, "runtime.memory")
    (lease,) = nora.poll()
    fail(nora, lease, "runtime.crashed")  # says nothing about the client's fault

    assert mike.poll() == []
    (lease,) = nora.poll()
    assert read(fail(nora, lease, "runtime.crashed"))["state"] == "failed"
    assert_refunded(job)


def test_a_clients_fault_that_nobody_reproduces_in_time_is_refunded_with_its_reason(alice, mike):
    job = submit(alice)
    (lease,) = mike.poll()
    start(mike, lease)
    fail(mike, lease, "runtime.invalid_model")
    pass_time(job["id"], 901)

    assert sweeps.sweep()["expired"] == 1

    shown = read(alice.get(f"/v1/jobs/{job['id']}"))
    assert (shown["state"], shown["error"]["code"]) == ("failed", "runtime.invalid_model")
    assert_refunded(job)


def test_a_client_fault_on_one_miner_and_a_result_on_the_next_is_a_completed_job(alice, mike, nora):
    job = submit(alice)
    (lease,) = mike.poll()
    fail(mike, lease, "runtime.memory")
    (lease,) = nora.poll()

    assert nora.deliver(lease, cast.MATMUL_OUTPUT).status_code == 200

    shown = read(alice.get(f"/v1/jobs/{job['id']}"))
    assert (shown["state"], shown["error"], shown["attempts"]) == ("completed", None, 2)
    assert maturing(mike) == 0


# -- cancel --------------------------------------------------------------------------------------
@pytest.mark.parametrize("state", ["queued", "leased"])
def test_what_never_ran_is_canceled_for_free(alice, mike, state):
    job = submit(alice)
    if state == "leased":
        mike.poll()

    shown = read(alice.post(f"/v1/jobs/{job['id']}/cancel"))

    assert (shown["state"], shown["payment"]["state"]) == ("canceled", "refunded")
    assert_refunded(job)
    assert QueuedJob.objects.count() == 0
    refused(alice.get(f"/v1/jobs/{job['id']}/result"), 409, "job.canceled")
    refused(alice.get(f"/v1/jobs/{job['id']}/receipt"), 404, "receipt.unknown")


def test_canceling_a_running_job_pays_what_was_metered(alice, mike):
    lease = lease_of(alice, mike)
    start(mike, lease)
    pass_time(lease["id"], 4)

    shown = read(alice.post(f"/v1/jobs/{lease['id']}/cancel"))

    payment, units = payment_of(lease), Job.objects.get().units_ms
    assert 4000 <= units < 5000
    assert payment.released + payment.fee == units * PRICE // 1000
    assert shown["payment"]["state"] == "partially_released"
    assert maturing(mike) == payment.released


def test_canceling_a_job_that_ran_too_long_pays_no_more_than_the_escrow(alice, mike):
    lease = lease_of(alice, mike, max_price={"amount": "0.0015"})
    start(mike, lease)
    pass_time(lease["id"], 4000)

    alice.post(f"/v1/jobs/{lease['id']}/cancel")

    payment = payment_of(lease)
    assert (payment.released + payment.fee, payment.refunded) == (15 * 10**14, 0)


def test_the_miner_is_told_to_stop_a_canceled_job(alice, mike):
    from apps.gpu.tests.beats import beat

    lease = lease_of(alice, mike)
    alice.post(f"/v1/jobs/{lease['id']}/cancel")

    assert read(beat(mike, running=[lease["id"]]))["cancel"] == [lease["id"]]


@pytest.mark.parametrize("state", ["completed", "failed", "canceled", "expired"])
def test_a_final_job_cannot_be_canceled(alice, mike, state):
    job = submit(alice)
    if state == "expired":
        pass_time(job["id"], 901)
        sweeps.sweep()
    elif state == "canceled":
        alice.post(f"/v1/jobs/{job['id']}/cancel")
    else:
        (lease,) = mike.poll()
        if state == "completed":
            mike.deliver(lease, cast.MATMUL_OUTPUT)
        else:
            fail(mike, lease, "runtime.crashed", retryable=False)
    before = snapshot()

    refused(alice.post(f"/v1/jobs/{job['id']}/cancel"), 409, "job.final")

    assert snapshot() == before


def test_an_operator_may_cancel_any_job(alice):
    job = submit(alice)

    cancellation.cancel(client=None, job=Job.objects.get().pk)

    assert Job.objects.get().state == "canceled"
    assert_refunded(job)


# -- time ----------------------------------------------------------------------------------------
def test_a_job_that_nobody_took_expires_and_is_refunded(alice):
    job = submit(alice, ttl_seconds=60)
    other = submit(alice, ttl_seconds=600)
    pass_time(job["id"], 61)

    assert sweeps.sweep()["expired"] == 1
    assert sweeps.sweep()["expired"] == 0

    shown = read(alice.get(f"/v1/jobs/{job['id']}"))
    assert (shown["state"], shown["error"]["code"]) == ("expired", "job.expired")
    assert shown["finished_at"] is not None
    assert_refunded(job, state="expired")
    assert payment_of(other).state == "escrowed"


def test_the_time_in_the_queue_does_not_bound_a_run(alice, mike):
    lease = lease_of(alice, mike, max_price={"amount": "0.5"}, ttl_seconds=60)
    start(mike, lease)
    pass_time(lease["id"], 59)
    mike.post(f"/v1/miners/{lease['id']}/progress", {"lease_token": lease["lease_token"]})
    pass_time(lease["id"], 59)

    found = sweeps.sweep()

    assert (found["expired"], found["leases"], found["overtime"]) == (0, 0, 0)
    assert mike.deliver(lease, cast.MATMUL_OUTPUT).status_code == 200


def test_a_run_beyond_its_escrow_is_ended_as_the_clients_timeout(alice, mike, nora):
    job = submit(alice, max_price={"amount": "0.01"})
    for miner, state in ((mike, "queued"), (nora, "failed")):
        (lease,) = miner.poll()
        start(miner, lease)
        pass_time(job["id"], 16)

        assert sweeps.sweep()["overtime"] == 1

        assert Job.objects.get().state == state
        refused(miner.deliver(lease, cast.MATMUL_OUTPUT), 409, "lease.lost")
    shown = read(alice.get(f"/v1/jobs/{job['id']}"))
    assert shown["error"]["code"] == "runtime.timeout"
    assert (payment_of(job).state, payment_of(job).refunded) == ("released", 0)
    assert maturing(mike) == 0
    assert maturing(nora) > 0


def test_a_hold_left_behind_by_a_final_job_is_returned(alice, mike):
    """As after an operator's repair by hand: the state machine resolves holds, whatever happened before."""
    job = submit(alice)
    QueuedJob.objects.all().delete()
    Job.objects.update(state="canceled", finished_at="2026-01-01T00:00:00Z")

    assert sweeps.sweep()["holds"] == 1
    assert sweeps.sweep()["holds"] == 0

    assert_refunded(job)


def test_signing_off_returns_what_runs_without_pay(alice, mike):
    lease = lease_of(alice, mike)
    start(mike, lease)

    mike.delete("/v1/miners/me")

    assert read(alice.get(f"/v1/jobs/{lease['id']}"))["state"] == "queued"
    assert Attempt.objects.get().code == "miner.signed_off"
    assert maturing(mike) == 0
    assert payment_of(lease).state == "escrowed"
    assert Miner.objects.get().state == "offline"


def test_two_miners_of_one_owner_do_not_confirm_each_other(alice, mike, nora):
    Miner.objects.filter(pk=nora.miner_id).update(owner=mike.id)
    job = submit(alice)
    for seller in (mike, nora):
        (lease,) = seller.poll()
        start(seller, lease)
        pass_time(job["id"], 2)
        shown = read(fail(seller, lease, "runtime.memory"))

    assert shown["state"] == "queued"
    assert maturing(mike) == 0
