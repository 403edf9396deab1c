"""Rule 25, as far as it is reached: a narrow queue in classes, whose row is gone with the claim."""

from apps.gpu.models import Job, JobClass, QueuedJob
from apps.gpu.tests.steps import submit


def test_equal_wishes_are_one_class_and_the_row_goes_with_the_claim(alice, mike):
    for _ in range(3):
        submit(alice)
    submit(alice, constraints={"region": "eu"})
    assert (JobClass.objects.count(), QueuedJob.objects.count()) == (2, 4)

    (lease,) = mike.poll()

    assert QueuedJob.objects.count() == 3
    assert not QueuedJob.objects.filter(job_id=lease["id"]).exists()
    assert {field.name for field in QueuedJob._meta.get_fields()} == {
        *("job", "job_class", "rank", "max_price", "expires_at", "avoid")
    }


def test_a_job_in_a_class_that_does_not_fit_is_never_looked_at(alice, mike):
    """Ten thousand at the head of the queue do not stand in the way of the one behind them."""
    submit(alice, constraints={"gpu_model": "nvidia/any"}, priority=10)
    job = submit(alice)

    assert [lease["id"] for lease in mike.poll()] == [job["id"]]
    assert Job.objects.get(state="queued").priority == 10
