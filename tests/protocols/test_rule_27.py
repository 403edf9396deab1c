"""Rule 27: a request repeated is a request once; batches repeat by the ids of their items."""

from datetime import timedelta

from django.db.models import F

from aitbc.core import tasks
from aitbc.core.ids import uuid7
from aitbc.core.models import IdempotencyKey
from aitbc.core.testing.cast import MATMUL_OUTPUT, job_body
from aitbc.core.testing.snapshot import snapshot
from apps.gpu.models import Job
from apps.gpu.tests.steps import lease_of, read, refused
from apps.gpu.tests.test_submission import (  # noqa: F401 - collected here too
    test_a_refusal_does_not_use_up_its_idempotency_key,
    test_a_request_under_way_with_the_same_key_is_a_conflict,
    test_an_idempotency_key_with_another_body_is_refused,
    test_idempotency_keys_belong_to_their_user,
)


def test_a_repeat_is_answered_as_the_first_time_and_writes_nothing(alice):
    first = alice.post("/v1/jobs", job_body(), idempotency_key="k")
    before = snapshot()

    again = alice.post("/v1/jobs", job_body(), idempotency_key="k")

    assert (again.status_code, again.content) == (first.status_code, first.content)
    assert snapshot() == before


def test_keys_are_kept_for_72_hours(alice):
    alice.post("/v1/jobs", job_body(), idempotency_key="old")
    IdempotencyKey.objects.update(created_at=F("created_at") - timedelta(hours=72, seconds=1))
    alice.post("/v1/jobs", job_body(), idempotency_key="young")

    tasks.forget_old_keys()

    assert list(IdempotencyKey.objects.values_list("key", flat=True)) == ["young"]
    assert alice.post("/v1/jobs", job_body(), idempotency_key="old").status_code == 201
    assert Job.objects.count() == 3


def test_batches_repeat_by_the_ids_of_their_items(alice):
    jobs = [job_body(id=str(uuid7())), job_body(id=str(uuid7()))]
    alice.post("/v1/jobs/batch", {"jobs": jobs})
    changed = [jobs[0], jobs[1] | {"priority": 4}]

    items = read(alice.post("/v1/jobs/batch", {"jobs": changed}))["items"]

    assert [item["status"] for item in items] == [200, 409]
    assert items[1]["problem"]["field"] == "priority"
    assert Job.objects.count() == 2


def test_results_repeat_by_job_and_lease_token(alice, mike):
    lease = lease_of(alice, mike)
    first = mike.deliver(lease, MATMUL_OUTPUT)
    before = snapshot()

    assert read(mike.deliver(lease, MATMUL_OUTPUT)) == read(first)
    refused(mike.deliver(lease, MATMUL_OUTPUT, lease_token=str(uuid7())), 409, "lease.lost")
    assert snapshot() == before
