"""What jobs wrote: reported beside progress, kept once, in order, for their client alone."""

from datetime import timedelta

import pytest
from django.core import signing
from django.db import DatabaseError, connection, transaction
from django.db.models import F
from django.test.utils import CaptureQueriesContext

from aitbc.accounts import parameters
from aitbc.core import db
from aitbc.core.errors import Unauthenticated
from aitbc.core.testing.cast import MATMUL_OUTPUT
from apps.gpu import tasks
from apps.gpu.joblog import ATTEMPT_BYTES, LINE_CHARS, REPORT_LINES, clean
from apps.gpu.models import Job, JobLog
from apps.gpu.services import logs
from apps.gpu.tests.steps import fail, lease_of, read, refused, start, submit

pytestmark = pytest.mark.django_db


def progress(miner, lease, **body):
    body = {"lease_token": lease["lease_token"]} | body
    return miner.post(f"/v1/miners/{lease['id']}/progress", body)


def text(client, job):
    response = client.get(f"/v1/jobs/{job['id']}/logs")
    assert response.status_code == 200, response.content
    assert response["Content-Type"] == "text/plain; charset=utf-8"
    assert response["Cache-Control"] == "no-store"
    return response.content.decode()


def events(client, job, **headers):
    response = client.get(f"/v1/jobs/{job['id']}/logs", accept="text/event-stream", **headers)
    assert response.status_code == 200, response.content
    assert response["Content-Type"] == "text/event-stream"
    return response.content.decode()


def test_a_job_nobody_ran_has_an_empty_log(alice):
    assert text(alice, submit(alice)) == ""


def test_lines_are_read_in_order_also_when_the_job_has_ended(alice, mike):
    lease = lease_of(alice, mike)
    start(mike, lease)

    shown = read(progress(mike, lease, message="b", logs=["a", "b"], logs_from=0))
    assert shown["progress"] == {"message": "b"}
    assert text(alice, lease) == "a\nb\n"
    progress(mike, lease, logs=["", "d"], logs_from=2)
    assert mike.deliver(lease, MATMUL_OUTPUT).status_code == 200

    assert text(alice, lease) == "a\nb\n\nd\n"
    kept = list(JobLog.objects.order_by("seq").values_list("seq", "attempt", "upto", "lines"))
    assert kept == [(1, 1, 2, ["a", "b"]), (2, 1, 4, ["", "d"])]


def test_the_log_of_every_attempt_stays(alice, mike, nora):
    lease = lease_of(alice, mike)
    progress(mike, lease, logs=["went wrong"], logs_from=0)
    assert fail(mike, lease, "runtime.crashed").status_code == 200

    (again,) = nora.poll()
    progress(nora, again, logs=["second try"], logs_from=0)

    assert text(alice, lease) == "went wrong\nsecond try\n"
    assert list(JobLog.objects.order_by("seq").values_list("attempt", flat=True)) == [1, 2]


def test_a_repeated_report_is_kept_once(alice, mike):
    lease = lease_of(alice, mike)
    for report in ({"logs": ["a", "b"], "logs_from": 0}, {"logs": ["a", "b", "c"], "logs_from": 0}):
        assert progress(mike, lease, **report).status_code == 200
        assert progress(mike, lease, **report).status_code == 200

    assert text(alice, lease) == "a\nb\nc\n"
    assert JobLog.objects.count() == 2


def test_lines_that_got_lost_on_the_way_are_said_to_be_missing(alice, mike):
    lease = lease_of(alice, mike)
    progress(mike, lease, logs=["a"], logs_from=0)
    progress(mike, lease, logs=["e"], logs_from=4)
    progress(mike, lease, logs=["f"])

    assert text(alice, lease) == "a\n[3 lines did not arrive]\ne\nf\n"


def test_lines_are_made_safe_and_cut(alice, mike):
    lease = lease_of(alice, mike)
    wicked = "x\ndata: y\r\x1b[2J\u2028z\t\x85"
    progress(mike, lease, logs=[wicked, "é" * (LINE_CHARS + 1), "é" * LINE_CHARS])

    first, cut, whole, end = text(alice, lease).split("\n")
    assert first == "x\ufffddata: y\ufffd\ufffd[2J\ufffdz\t\ufffd"
    assert cut == "é" * (LINE_CHARS - 11) + " [line cut]"
    assert (whole, end) == ("é" * LINE_CHARS, "")


def test_what_no_store_can_hold_is_replaced_and_cleaning_twice_changes_nothing():
    assert clean("a\x00b\ud800c") == "a\ufffdb\ufffdc"
    assert clean(clean("é" * 5000)) == clean("é" * 5000)
    assert len(clean("é" * 5000)) == LINE_CHARS


def test_an_attempt_keeps_only_so_much_and_says_so(alice, mike):
    lease = lease_of(alice, mike)
    lines = ["x" * 1999] * REPORT_LINES
    for number in range(4):
        progress(mike, lease, logs=lines, logs_from=number * REPORT_LINES)

    kept = text(alice, lease).splitlines()
    assert kept[-1] == f"[the log of this attempt passed {ATTEMPT_BYTES} bytes; the rest is not kept]"
    assert len(kept) - 1 == (ATTEMPT_BYTES - 3 * 64) // 2000
    assert JobLog.objects.count() == 3


def test_many_tiny_reports_reach_the_limit_too(alice, mike):
    lease = lease_of(alice, mike)
    progress(mike, lease, logs=["a"])
    assert JobLog.objects.get().size == 66


def test_logs_count_against_their_clients_quota_and_what_is_cut_is_said(alice, mallory, mike, nora):
    parameters.change(name="max_log_bytes", value=20, by=None)
    lease, other = lease_of(alice, mike), lease_of(mallory, nora)
    progress(mike, lease, logs=["a" * 10, "é" * 5], logs_from=0)  # 22 bytes with their ends
    assert db.value("SELECT bytes FROM gpu_log_usage WHERE client_id = %s", (alice.id,)) == 22

    for first in (2, 3):
        assert progress(mike, lease, logs=["more"], logs_from=first, message="more").status_code == 200
    progress(nora, other, logs=["theirs"])

    assert text(alice, lease).splitlines()[2:] == [
        "[the logs of this client's jobs passed their quota; the rest of this attempt's is not kept]"
    ]
    assert text(mallory, other) == "theirs\n"


def test_logs_of_jobs_that_ended_long_ago_go_and_give_their_bytes_back(alice, mike, nora):
    """A job's id says when it was made: this one is of June 2023."""
    job = submit(alice, id="01890a5d-ac96-774b-bcce-b302099a8057")
    (lease,) = mike.poll()
    progress(mike, lease, logs=["a" * 10])
    progress(nora, lease_of(alice, nora), logs=["b" * 20])
    assert db.value("SELECT bytes FROM gpu_log_usage") == 32
    assert tasks.keep() == 0  # it runs
    assert mike.deliver(lease, MATMUL_OUTPUT).status_code == 200
    assert tasks.keep() == 0  # it ended just now

    Job.objects.filter(pk=job["id"]).update(finished_at=F("finished_at") - timedelta(days=31))
    assert tasks.keep() == 1

    assert text(alice, job) == ""
    assert JobLog.objects.count() == 1
    assert db.value("SELECT bytes FROM gpu_log_usage") == 21


def test_too_many_lines_are_refused_and_nothing_changes(alice, mike):
    lease = lease_of(alice, mike)

    problem = refused(progress(mike, lease, logs=["x"] * (REPORT_LINES + 1)), 422, "request.invalid")

    assert problem["errors"][0]["loc"] == ["body", "logs"]
    assert Job.objects.get().progress is None
    assert not JobLog.objects.exists()


def test_who_does_not_hold_the_lease_adds_nothing(alice, mike, nora):
    lease = lease_of(alice, mike)
    before = Job.objects.get().lease_expires_at
    wrong = {"lease_token": "01890a5d-ac96-774b-bcce-b302099a8057"}

    refused(progress(mike, lease, logs=["x"], message="x", **wrong), 409, "lease.lost")
    refused(progress(nora, lease, logs=["x"], message="x"), 404, "job.unknown")
    assert (Job.objects.get().lease_expires_at, Job.objects.get().progress) == (before, None)
    mike.deliver(lease, MATMUL_OUTPUT)
    refused(progress(mike, lease, logs=["x"]), 409, "lease.lost")

    assert not JobLog.objects.exists()


def test_a_log_is_for_the_jobs_client_alone(alice, mike, mallory):
    lease = lease_of(alice, mike)
    progress(mike, lease, logs=["private"])

    for stranger in (mallory, mike):
        refused(stranger.get(f"/v1/jobs/{lease['id']}/logs"), 404, "job.unknown")
        path = f"/v1/jobs/{lease['id']}/logs"
        refused(stranger.get(path, accept="text/event-stream"), 404, "job.unknown")
    refused(alice.get("/v1/jobs/01890a5d-ac96-774b-bcce-b302099a8057/logs"), 404, "job.unknown")


def test_events_are_numbered_resumed_and_ended(alice, mike):
    lease = lease_of(alice, mike)
    progress(mike, lease, logs=["a", "b"], logs_from=0)
    progress(mike, lease, logs=["c"], logs_from=2)

    first, second = "id: 1\ndata: a\ndata: b\n\n", "id: 2\ndata: c\n\n"
    assert events(alice, lease) == "retry: 2000\n\n" + first + second
    mike.deliver(lease, MATMUL_OUTPUT)
    end = 'event: end\ndata: {"state":"completed"}\n\n'
    assert events(alice, lease) == "retry: 2000\n\n" + first + second + end
    assert events(alice, lease, last_event_id="1") == "retry: 2000\n\n" + second + end
    assert events(alice, lease, last_event_id="nonsense") == "retry: 2000\n\n" + first + second + end


def test_events_of_a_job_that_goes_on_are_followed_elsewhere(alice, mike, settings):
    settings.STREAM_URL = "http://stream.test:9000"
    lease = lease_of(alice, mike)

    response = alice.get(f"/v1/jobs/{lease['id']}/logs", accept="text/event-stream")

    address, ticket = response["Location"].split("?ticket=")
    assert response.status_code == 307
    assert address == f"http://stream.test:9000/v1/jobs/{lease['id']}/logs/follow"
    assert logs.client_of(ticket, job=Job.objects.get().pk) == alice.id
    assert text(alice, lease) == ""
    mike.deliver(lease, MATMUL_OUTPUT)
    assert events(alice, lease).endswith('event: end\ndata: {"state":"completed"}\n\n')


def test_a_ticket_is_for_one_job_and_a_minute(alice, monkeypatch):
    job, other = Job(pk="01890a5d-ac96-774b-bcce-b302099a8057"), "01890a5d-ac96-774b-bcce-b302099a8058"
    ticket = logs.ticket(client=alice.id, job=job.pk)

    assert logs.client_of(ticket, job=job.pk) == alice.id
    for wrong, of in ((ticket, other), (ticket[:-1] + "!", job.pk), ("", job.pk)):
        with pytest.raises(Unauthenticated) as refusal:
            logs.client_of(wrong, job=of)
        assert refusal.value.code == "auth.ticket"
    now = signing.time.time()
    monkeypatch.setattr(signing.time, "time", lambda: now + 61)
    with pytest.raises(Unauthenticated):
        logs.client_of(ticket, job=job.pk)


def test_without_lines_not_one_statement_more_is_run(alice, mike):
    lease = lease_of(alice, mike)
    with CaptureQueriesContext(connection) as seen:
        assert progress(mike, lease).status_code == 200
        assert mike.deliver(lease, MATMUL_OUTPUT).status_code == 200

    assert [query for query in seen.captured_queries if "gpu_job_log" in query["sql"]] == []
    assert [query for query in seen.captured_queries if "SAVEPOINT" in query["sql"]] == []


def test_a_log_is_kept_only_with_the_report_it_came_with(alice, mike):
    lease = lease_of(alice, mike)

    def refuse():
        raise DatabaseError("no")

    with pytest.raises(DatabaseError):
        logs.beside(refuse, job=lease["id"], lines=["x"], first=0)

    assert not JobLog.objects.exists()


def test_the_application_can_change_no_line_and_a_deleted_job_takes_its_log_along(alice, mike):
    lease = lease_of(alice, mike)
    progress(mike, lease, logs=["a"])

    with pytest.raises(DatabaseError, match="permission denied"), transaction.atomic():
        JobLog.objects.update(upto=7)
    assert JobLog.objects.get().upto == 1
    Job.objects.filter(pk=lease["id"]).delete()
    assert not JobLog.objects.exists()
