"""An operator's word on a miner: what it does to its state and leases, and when it is refused."""

import pytest

from aitbc.core.errors import Conflict, NotFound
from aitbc.core.ids import uuid7
from aitbc.core.models import OutboxEvent
from aitbc.core.testing import cast
from aitbc.core.testing.cast import AIT, job_body
from apps.gpu.models import Attempt, Job, Miner, QueuedJob
from apps.gpu.services import moderation

pytestmark = pytest.mark.django_db


@pytest.fixture
def mike():
    return cast.seller("mike", concurrency=2)


@pytest.fixture
def alice():
    alice = cast.person("alice")
    cast.fund(alice.id, AIT)
    return alice


def state(miner):
    return Miner.objects.get(pk=miner.miner_id).state


def test_a_drained_miner_keeps_its_lease_and_gets_no_other(alice, mike):
    for _ in range(2):
        alice.post("/v1/jobs", job_body())
    (lease,) = mike.poll(max_jobs=1)
    moderation.drain(miner=mike.miner_id)

    assert state(mike) == "draining"
    assert mike.poll(max_jobs=1) == []
    assert Job.objects.get(pk=lease["id"]).state == "leased"


def test_a_suspended_miner_loses_its_lease_without_losing_the_job(alice, mike):
    alice.post("/v1/jobs", job_body())
    (lease,) = mike.poll()
    moderation.suspend(miner=mike.miner_id)

    assert state(mike) == "suspended"
    assert Job.objects.get(pk=lease["id"]).state == "queued"
    assert QueuedJob.objects.filter(pk=lease["id"]).exists()
    assert Attempt.objects.get(job=lease["id"]).code == "miner.suspended"
    assert mike.poll() == []


@pytest.mark.parametrize("before", ["draining", "suspended"])
def test_a_resumed_miner_is_suspect_and_may_poll(alice, mike, before):
    Miner.objects.filter(pk=mike.miner_id).update(state=before)
    announced = OutboxEvent.objects.filter(event="gpu.miner_registered").count()
    moderation.resume(miner=mike.miner_id)

    assert state(mike) == "suspect"
    assert OutboxEvent.objects.filter(event="gpu.miner_registered").count() == announced + 1
    alice.post("/v1/jobs", job_body())
    assert len(mike.poll()) == 1


@pytest.mark.parametrize(
    ("verb", "before"),
    [
        (moderation.drain, "draining"),
        (moderation.drain, "suspended"),
        (moderation.drain, "dead"),
        (moderation.suspend, "suspended"),
        (moderation.resume, "online"),
        (moderation.resume, "dead"),
    ],
)
def test_what_does_not_apply_is_refused_and_changes_nothing(mike, verb, before):
    Miner.objects.filter(pk=mike.miner_id).update(state=before)
    events = OutboxEvent.objects.count()

    with pytest.raises(Conflict) as refused:
        verb(miner=mike.miner_id)

    assert (refused.value.code, refused.value.context) == ("miner.state", {"state": before})
    assert (state(mike), OutboxEvent.objects.count()) == (before, events)


@pytest.mark.parametrize("verb", [moderation.drain, moderation.suspend, moderation.resume])
def test_there_is_no_such_miner(db, verb):
    with pytest.raises(NotFound):
        verb(miner=uuid7())
