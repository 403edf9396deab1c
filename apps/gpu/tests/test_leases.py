"""Only the holder of a lease may end its job, once; whatever comes late or twice changes nothing."""

import pytest

from aitbc.core.ids import uuid7
from aitbc.core.testing import cast
from aitbc.core.testing.cast import AIT, MATMUL_OUTPUT
from aitbc.core.testing.snapshot import snapshot
from apps.gpu.models import Attempt, Job, QueuedJob
from apps.gpu.services import sweeps
from apps.gpu.tests.steps import fail, fall_silent, lease_of, pass_time, read, refused, start, submit
from apps.trading.models import Payment
from apps.trading.services.audit import audit

REPORTS = ("start", "progress", "result", "fail")


def report(miner, name, job, token):
    """One of the four reports of a lease, well-formed but for whose it is."""
    body = {"lease_token": token}
    if name == "result":
        signature = "0x" + "11" * 65
        body |= {"output": MATMUL_OUTPUT, "metrics": {}, "statement_signature": signature}
    if name == "fail":
        body |= {"code": "runtime.crashed", "message": "no"}
    return miner.post(f"/v1/miners/{job}/{name}", body)


def result_item(miner, lease, output=MATMUL_OUTPUT, **more):
    return {
        "job_id": lease["id"],
        "lease_token": lease["lease_token"],
        "output": output,
        "metrics": {},
        "statement_signature": miner.sign_result(lease, output),
    } | more


def test_a_job_is_started_reports_progress_and_completes(alice, mike):
    lease = lease_of(alice, mike)
    start(mike, lease)
    body = {"lease_token": lease["lease_token"], "percent": 40, "message": "halfway"}
    shown = read(mike.post(f"/v1/miners/{lease['id']}/progress", body))
    assert (shown["state"], shown["progress"]) == ("running", {"percent": 40.0, "message": "halfway"})
    assert read(alice.get(f"/v1/jobs/{lease['id']}"))["progress"] == {"percent": 40.0, "message": "halfway"}

    answer = read(mike.deliver(lease, MATMUL_OUTPUT, metrics={"steps": 3}))

    assert answer["job"]["state"] == "completed"
    assert answer["receipt"]["anchor"] is None
    assert "salt" not in answer["receipt"]
    result = read(alice.get(f"/v1/jobs/{lease['id']}/result"))
    assert result == {"job_id": lease["id"], "output": MATMUL_OUTPUT, "output_artifact": None, "metrics": {"steps": 3}}


def test_a_second_start_keeps_the_first_moment(alice, mike):
    lease = lease_of(alice, mike)
    start(mike, lease)
    first = Job.objects.get().started_at

    start(mike, lease)

    assert Job.objects.get().started_at == first


def test_progress_renews_the_lease(alice, mike):
    lease = lease_of(alice, mike)
    pass_time(lease["id"], 50)
    before = Job.objects.get().lease_expires_at

    mike.post(f"/v1/miners/{lease['id']}/progress", {"lease_token": lease["lease_token"]})

    assert 49 < (Job.objects.get().lease_expires_at - before).total_seconds() < 60


@pytest.mark.parametrize("name", REPORTS)
def test_another_miners_job_is_not_found(alice, mike, nora, name):
    lease = lease_of(alice, mike)
    before = snapshot()

    refused(report(nora, name, lease["id"], lease["lease_token"]), 404, "job.unknown")

    assert snapshot() == before


@pytest.mark.parametrize("name", REPORTS)
def test_a_job_that_nobody_leased_is_not_found(alice, mike, name):
    job = submit(alice)
    before = snapshot()

    refused(report(mike, name, job["id"], str(uuid7())), 404, "job.unknown")
    refused(report(mike, name, str(uuid7()), str(uuid7())), 404, "job.unknown")

    assert snapshot() == before


@pytest.mark.parametrize("name", REPORTS)
def test_another_token_is_a_lost_lease(alice, mike, name):
    lease = lease_of(alice, mike)
    before = snapshot()

    refused(report(mike, name, lease["id"], str(uuid7())), 409, "lease.lost")

    assert snapshot() == before


@pytest.mark.parametrize("name", REPORTS)
@pytest.mark.parametrize("how", ["expired", "taken over", "canceled", "completed by another"])
def test_a_late_report_of_a_lost_lease_changes_nothing(alice, mike, nora, name, how):
    lease = lease_of(alice, mike)
    if how == "canceled":
        assert alice.post(f"/v1/jobs/{lease['id']}/cancel").status_code == 200
    else:
        pass_time(lease["id"], 61)
        assert sweeps.sweep()["leases"] == 1
    if how in ("taken over", "completed by another"):
        (second,) = nora.poll()
        assert second["attempt"] == 2
        assert second["lease_token"] != lease["lease_token"]
    if how == "completed by another":
        assert nora.deliver(second, MATMUL_OUTPUT).status_code == 200
    before = snapshot()

    late = (
        mike.deliver(lease, MATMUL_OUTPUT)
        if name == "result"
        else report(mike, name, lease["id"], lease["lease_token"])
    )

    refused(late, 409, "lease.lost")
    assert snapshot() == before
    assert audit() == []


@pytest.mark.parametrize("name", ["start", "progress", "fail"])
def test_a_completed_job_takes_no_more_reports(alice, mike, name):
    lease = lease_of(alice, mike)
    mike.deliver(lease, MATMUL_OUTPUT)
    before = snapshot()

    refused(report(mike, name, lease["id"], lease["lease_token"]), 409, "lease.lost")

    assert snapshot() == before


def test_an_accepted_result_sent_again_returns_the_same_answer_and_pays_once(alice, mike):
    lease = lease_of(alice, mike)
    first = mike.deliver(lease, MATMUL_OUTPUT)
    before = snapshot()

    again = mike.deliver(lease, MATMUL_OUTPUT)

    assert (first.status_code, again.status_code) == (200, 200)
    assert read(again) == read(first)
    assert snapshot() == before


@pytest.mark.parametrize(
    "change",
    [{"output": MATMUL_OUTPUT | {"seconds": 9.0}}, {"metrics": {"a": 1}}, {"claimed_ms": 1}, {"lease_token": "other"}],
)
def test_another_body_after_acceptance_is_refused(alice, mike, change):
    lease = lease_of(alice, mike)
    mike.deliver(lease, MATMUL_OUTPUT)
    before = snapshot()
    if change == {"lease_token": "other"}:
        change = {"lease_token": str(uuid7())}

    body = result_item(mike, lease) | change
    del body["job_id"]

    refused(mike.post(f"/v1/miners/{lease['id']}/result", body), 409, "lease.lost")

    assert snapshot() == before


def test_one_result_delivered_by_eight_threads_at_once_is_accepted_and_paid_once(committed_db, in_threads):
    alice, mike = cast.person("alice"), cast.seller("mike")
    cast.fund(alice.id, AIT)
    for _ in range(5):
        lease = lease_of(alice, mike)
        start(mike, lease)

        answers = in_threads(lambda _, lease=lease: mike.deliver(lease, MATMUL_OUTPUT), 8)

        assert [answer.status_code for answer in answers] == [200] * 8
        assert all(read(answer) == read(answers[0]) for answer in answers)
        assert Payment.objects.get(job=lease["id"]).state == "partially_released"
    assert audit() == []


# -- what a result must hold ---------------------------------------------------------------------
@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"output": {"n": 8}}, "result.invalid_output"),
        ({"output": "text"}, "result.invalid_output"),
        ({"output": None}, "result.output"),
        ({"output_artifact": "ab" * 32}, "result.output"),
        ({"statement_signature": "0x" + "11" * 65}, "signing.signature"),
        ({"statement_signature": "0x12"}, "request.invalid"),
        ({"claimed_ms": -1}, "request.invalid"),
        ({"metrics": []}, "request.invalid"),
        ({"surplus": 1}, "request.invalid"),
    ],
)
def test_a_result_that_is_not_one_is_refused_and_the_lease_stays(alice, mike, change, code):
    lease = lease_of(alice, mike)
    before = snapshot()

    body = result_item(mike, lease) | change
    del body["job_id"]

    response = mike.post(f"/v1/miners/{lease['id']}/result", body)

    assert (response.status_code, read(response)["code"]) == (422, code)
    assert snapshot() == before
    assert mike.deliver(lease, MATMUL_OUTPUT).status_code == 200


@pytest.mark.parametrize("what", ["another key", "another output", "another attempt", "another price"])
def test_the_statement_must_be_the_miners_own_over_exactly_this_work(alice, mike, nora, what):
    lease = lease_of(alice, mike)
    before = snapshot()
    forged = {
        "another key": lambda: nora.sign_result(lease, MATMUL_OUTPUT),
        "another output": lambda: mike.sign_result(lease, MATMUL_OUTPUT | {"n": 9}),
        "another attempt": lambda: mike.sign_result(lease | {"attempt": 2}, MATMUL_OUTPUT),
        "another price": lambda: mike.sign_result(
            lease | {"unit_price": {"amount": "0.01", "asset": "AIT"}}, MATMUL_OUTPUT
        ),
    }[what]()

    refused(mike.deliver(lease, MATMUL_OUTPUT, statement_signature=forged), 422, "result.signature")

    assert snapshot() == before


def test_numbers_come_back_as_they_were_sent_also_where_the_database_writes_them_otherwise(alice, nora):
    """1e17 comes back from PostgreSQL as a whole number; both sides must still commit to the same input."""
    miner = cast.seller("embed", kinds=("text.embed",))
    lease = lease_of(alice, miner, kind="text.embed", input={"texts": ["a", "é€\u2028"]})
    numbers = [1e17, -0.0, 1e-7, 5e-324, 1.0, 0.1, 2**53, 123456789.125]
    output = {"dim": 384, "vectors": [numbers * 48, numbers[::-1] * 48]}

    response = miner.deliver(lease, output)

    assert response.status_code == 200, response.content
    stored = read(alice.get(f"/v1/jobs/{lease['id']}/result"))["output"]
    assert stored == output
    receipt = read(alice.get(f"/v1/jobs/{lease['id']}/receipt"))
    expected = cast.statement_of(lease, stored).as_json()
    assert receipt["statement"] == expected


def test_a_job_with_artifacts_must_be_started_before_its_result(alice, mike, artifacts_dir):
    import hashlib

    content = b'{"n": 8, "seed": 1, "dtype": "float32"}'
    sha256 = hashlib.sha256(content).hexdigest()
    alice.put(f"/v1/artifacts/{sha256}", content)
    lease = lease_of(alice, mike, input=None, input_artifact=sha256)
    before = snapshot()

    refused(mike.deliver(lease, MATMUL_OUTPUT), 409, "job.not_started")
    assert snapshot() == before
    start(mike, lease)
    inline = mike.sign_result(lease | {"input_artifact": None}, MATMUL_OUTPUT)
    refused(mike.deliver(lease, MATMUL_OUTPUT, statement_signature=inline), 422, "result.signature")
    assert mike.deliver(lease, MATMUL_OUTPUT).status_code == 200


# -- batches of results --------------------------------------------------------------------------
def test_a_batch_of_results_answers_each_item_for_itself(alice, nora):
    miner = cast.seller("many", concurrency=10)
    leases = [lease_of(alice, miner) for _ in range(5)]
    foreign = lease_of(alice, nora)
    good = result_item(miner, leases[0])
    items = [
        good,
        result_item(miner, leases[1], statement_signature=miner.sign_result(leases[2], MATMUL_OUTPUT)),
        result_item(miner, foreign),
        good,
        {"job_id": "no"},
        result_item(miner, leases[2], lease_token=str(uuid7())),
        result_item(miner, leases[2]),
        result_item(miner, leases[3]),
        result_item(miner, leases[3], MATMUL_OUTPUT | {"n": 9}),
    ]

    response = miner.post("/v1/miners/results", {"results": items})

    assert response.status_code == 207
    answers = read(response)["items"]
    assert [answer["status"] for answer in answers] == [200, 422, 404, 200, 422, 409, 200, 200, 409]
    assert answers[3] == answers[0]
    assert answers[0]["receipt"]["statement"]["job"] == leases[0]["id"]
    assert answers[2]["problem"]["code"] == "job.unknown"
    assert {answers[n]["problem"]["code"] for n in (5, 8)} == {"lease.lost"}
    states = dict(Job.objects.values_list("id", "state"))
    assert sorted(states.values()) == ["completed"] * 3 + ["leased"] * 3
    assert read(alice.get(f"/v1/jobs/{leases[3]['id']}/result"))["output"] == MATMUL_OUTPUT
    assert audit() == []


def test_a_batch_of_results_sent_again_returns_the_same_answers(alice):
    miner = cast.seller("many", concurrency=10)
    items = [result_item(miner, lease_of(alice, miner)) for _ in range(3)]
    first = read(miner.post("/v1/miners/results", {"results": items}))
    before = snapshot()

    again = read(miner.post("/v1/miners/results", {"results": items}))

    assert again == first
    assert [answer["status"] for answer in again["items"]] == [200] * 3
    assert snapshot() == before


def test_two_batches_with_the_same_jobs_in_opposite_order_do_not_deadlock(committed_db, in_threads):
    alice, miner = cast.person("alice"), cast.seller("many", concurrency=100)
    cast.fund(alice.id, AIT)
    for _ in range(40):
        submit(alice)
    items = [result_item(miner, lease) for lease in miner.poll(max_jobs=64)]

    answers = in_threads(lambda n: miner.post("/v1/miners/results", {"results": items[:: 1 if n % 2 else -1]}), 4)

    statuses = {item["status"] for answer in answers for item in read(answer)["items"]}
    assert statuses == {200}
    assert Job.objects.filter(state="completed").count() == 40
    assert audit() == []


# -- leases that end by themselves ---------------------------------------------------------------
def test_an_expired_lease_is_queued_again_at_its_old_rank(alice, mike, nora):
    lease = lease_of(alice, mike)
    younger = submit(alice)
    pass_time(lease["id"], 61)

    assert sweeps.sweep()["leases"] == 1

    shown = read(alice.get(f"/v1/jobs/{lease['id']}"))
    assert (shown["state"], shown["attempts"], shown["miner_id"]) == ("queued", 1, None)
    attempt = Attempt.objects.get()
    assert (attempt.attempt, attempt.code, attempt.fault) == (1, "lease.expired", "provider")
    assert attempt.miner_id == mike.miner_id
    assert [job["id"] for job in nora.poll()] == [lease["id"]]
    assert QueuedJob.objects.get().job_id == uuid_of(younger)
    assert audit() == []


def uuid_of(job):
    from uuid import UUID

    return UUID(job["id"])


def test_a_lease_within_its_time_is_left_alone(alice, mike):
    lease = lease_of(alice, mike, max_price={"amount": "0.06"})
    pass_time(lease["id"], 55)

    assert sweeps.sweep()["leases"] == 0
    assert mike.deliver(lease, MATMUL_OUTPUT).status_code == 200


def test_attempts_used_up_fail_the_job_and_refund_it(alice, mike):
    job = submit(alice)
    for attempt in (1, 2, 3):
        (lease,) = mike.poll()
        assert lease["attempt"] == attempt
        pass_time(job["id"], 61)
        assert sweeps.sweep()["leases"] == 1

    shown = read(alice.get(f"/v1/jobs/{job['id']}"))
    assert (shown["state"], shown["error"]["code"]) == ("failed", "lease.expired")
    assert shown["payment"]["state"] == "refunded"
    assert shown["payment"]["refunded"]["amount"] == "0.01"
    assert mike.poll() == []
    refused(alice.get(f"/v1/jobs/{job['id']}/result"), 409, "lease.expired")
    assert audit() == []


def test_a_job_not_started_in_time_goes_to_another_miner_for_free(alice, mike, nora, artifacts_dir):
    import hashlib

    content = b"{}"
    sha256 = hashlib.sha256(content).hexdigest()
    alice.put(f"/v1/artifacts/{sha256}", content)
    lease = lease_of(alice, mike, input=None, input_artifact=sha256)
    pass_time(lease["id"], 121)
    Job.objects.update(lease_expires_at="2100-01-01T00:00:00Z")  # its heartbeats renew the lease

    assert sweeps.sweep()["unstarted"] == 1

    assert Attempt.objects.get().code == "lease.not_started"
    assert [again["id"] for again in nora.poll()] == [lease["id"]]
    payment = Payment.objects.get()
    assert (payment.state, payment.released, payment.fee, payment.held) == ("escrowed", 0, 0, 10**16)


def test_a_miner_cannot_sit_on_a_job_by_heartbeats_alone(alice, mike, nora):
    lease = lease_of(alice, mike)  # pays for ten seconds
    Job.objects.update(lease_expires_at="2100-01-01T00:00:00Z")
    pass_time(lease["id"], 14)
    Job.objects.update(lease_expires_at="2100-01-01T00:00:00Z")
    assert sweeps.sweep()["unstarted"] == 0
    pass_time(lease["id"], 2)
    Job.objects.update(lease_expires_at="2100-01-01T00:00:00Z")

    assert sweeps.sweep()["unstarted"] == 1

    assert Attempt.objects.get().fault == "provider"
    assert [again["id"] for again in nora.poll()] == [lease["id"]]


def test_a_dead_miners_leases_go_back(alice, nora):
    miner = cast.seller("doomed", concurrency=3)
    leases = [lease_of(alice, miner) for _ in range(3)]
    fall_silent(miner, 61)

    assert sweeps.sweep()["dead"] == 1

    assert QueuedJob.objects.count() == 3
    assert set(Attempt.objects.values_list("code", flat=True)) == {"miner.dead"}
    refused(miner.deliver(leases[0], MATMUL_OUTPUT), 409, "lease.lost")
    assert audit() == []


def test_sweeps_at_once_end_each_lease_once(committed_db, in_threads):
    alice, miner = cast.person("alice"), cast.seller("many", concurrency=100)
    cast.fund(alice.id, AIT)
    for _ in range(30):
        submit(alice)
    for lease in miner.poll(max_jobs=64):
        pass_time(lease["id"], 61)

    counts = in_threads(lambda _: sweeps.sweep()["leases"], 4)

    assert sum(counts) == 30
    assert Attempt.objects.count() == 30
    assert QueuedJob.objects.count() == 30
    assert audit() == []


def test_failing_many_jobs_while_others_complete_does_not_deadlock(committed_db, in_threads):
    """Both lock jobs and then the same accounts; more jobs than a cursor fetches at once."""
    alice, gone, miner = (
        cast.person("alice"),
        cast.seller("gone", concurrency=100),
        cast.seller("many", concurrency=100),
    )
    cast.fund(alice.id, 2 * AIT)
    for _ in range(120):
        submit(alice)
    doomed, done = gone.poll(max_jobs=60), miner.poll(max_jobs=60)
    Job.objects.filter(miner=gone.miner_id).update(attempts=3)
    items = [result_item(miner, lease) for lease in done]

    def act(index):
        if index == 0:
            return gone.delete("/v1/miners/me").status_code
        if index == 1:
            return miner.post("/v1/miners/results", {"results": items}).status_code
        return {alice.post(f"/v1/jobs/{lease['id']}/cancel").status_code for lease in doomed[::-3]}

    answers = in_threads(act, 3)

    assert answers[:2] == [200, 207]
    assert answers[2] <= {200, 409}
    assert Job.objects.filter(state="completed").count() == 60
    assert Job.objects.filter(state__in=("failed", "canceled")).count() == 60
    assert audit() == []


def test_fail_is_reported_to_the_client(alice, mike):
    lease = lease_of(alice, mike)

    shown = read(fail(mike, lease, "runtime.crashed", retryable=False))

    assert (shown["state"], shown["error"]) == (
        "failed",
        {"code": "runtime.crashed", "message": "because of runtime.crashed"},
    )


def test_burying_many_miners_while_their_results_come_in_does_not_deadlock(committed_db, in_threads):
    """Their jobs fail and refund one client's account, which each of the late results wants too."""
    alice = cast.person("alice")
    cast.fund(alice.id, AIT)
    sellers = [cast.seller(f"m{n}", concurrency=4) for n in range(4)]
    for _ in range(12):
        submit(alice)
    leases = [(one, lease | {"attempt": 3}) for one in sellers for lease in one.poll(max_jobs=3)]
    Job.objects.update(attempts=3)
    for one in sellers:  # four are few enough to be no mass silence
        fall_silent(one, 61)

    def act(index):
        if index == 0:
            return [sweeps.sweep()["dead"]]
        mine = leases[index - 1 :: 3]
        return [one.deliver(lease, MATMUL_OUTPUT).status_code for one, lease in mine]

    dead, *answers = in_threads(act, 4)

    assert dead == [4]
    assert {status for one in answers for status in one} <= {200, 409}
    assert set(Job.objects.values_list("state", flat=True)) <= {"completed", "failed"}
    assert audit() == []


def test_many_results_are_read_at_once_each_with_its_receipt_or_its_reason(alice, mallory, mike):
    done = lease_of(alice, mike)
    mike.deliver(done, MATMUL_OUTPUT)
    failed = lease_of(alice, mike)
    fail(mike, failed, "runtime.crashed", retryable=False)
    queued, foreign = submit(alice), submit(mallory)
    ids = [done["id"], failed["id"], queued["id"], foreign["id"], str(uuid7())]

    response = alice.get("/v1/jobs/results?" + "&".join(f"id={job}" for job in ids))

    assert response.status_code == 207
    items = read(response)["items"]
    assert [item["status"] for item in items] == [200, 409, 425, 404, 404]
    assert items[0]["result"]["output"] == MATMUL_OUTPUT
    assert items[0]["receipt"] == read(alice.get(f"/v1/jobs/{done['id']}/receipt"))
    assert [item["problem"]["code"] for item in items[1:]] == [
        "runtime.crashed",
        "job.not_ready",
        "job.unknown",
        "job.unknown",
    ]


@pytest.mark.parametrize("query", ["", "?id=no", "?" + "&".join(["id=" + "0" * 32] * 101)])
def test_a_malformed_list_of_ids_is_refused(alice, query):
    assert alice.get(f"/v1/jobs/results{query}").status_code == 422
