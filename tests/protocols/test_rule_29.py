"""Rule 29: tasks are redelivered; the lease decides who runs a job, and attempts bound it."""

from aitbc.accounts import parameters
from aitbc.celery import app
from aitbc.core import checks
from apps.gpu.services import sweeps
from apps.gpu.tests.steps import pass_time, read, submit


def test_the_visibility_timeout_lies_above_the_longest_job(settings):
    longest = {d.name: d for d in parameters.DEFINITIONS}["max_job_seconds"].maximum

    assert longest == settings.MAX_JOB_SECONDS < settings.CELERY_VISIBILITY_TIMEOUT
    assert app.conf.broker_transport_options["visibility_timeout"] == settings.CELERY_VISIBILITY_TIMEOUT
    assert checks.visibility_timeout() == []
    settings.CELERY_VISIBILITY_TIMEOUT = longest
    assert [error.id for error in checks.visibility_timeout()] == ["aitbc.E001"]


def test_a_task_delivered_twice_finds_its_job_taken(alice, mike, nora):
    job = submit(alice)

    assert mike.claim(most=1) == [job["id"]]
    assert nora.claim(most=1) == []
    assert mike.claim(most=1) == []


def test_a_job_that_kills_its_worker_again_and_again_is_bounded_by_its_attempts(alice, mike):
    assert app.conf.task_reject_on_worker_lost is False
    job = submit(alice)
    for _ in range(parameters.get("max_attempts")):
        assert mike.claim(most=1) == [job["id"]]
        pass_time(job["id"], 61)
        sweeps.sweep()

    assert mike.claim(most=1) == []
    assert read(alice.get(f"/v1/jobs/{job['id']}"))["state"] == "failed"
