"""Rule 25: a narrow queue in classes, whose row is gone with the claim, in the order of a start-time-fair rank."""

import json

import pytest
from django.db.models import Max

from aitbc.core import db as database
from apps.gpu.models import Job, JobClass, QueuedJob
from apps.gpu.tests.steps import submit
from apps.gpu.tests.test_queue import (  # noqa: F401 - collected here too
    test_one_client_with_ninety_nine_percent_of_the_queue_starves_nobody,
    test_the_weight_of_priority_is_capped,
)
from bench import claims

SECOND = 1_000_000


def test_equal_wishes_are_one_class_and_the_row_goes_with_the_claim(alice, mike):
    for _ in range(3):
        submit(alice)
    submit(alice, constraints={"region": "eu"})
    assert (JobClass.objects.count(), QueuedJob.objects.count()) == (2, 4)

    (lease,) = mike.poll()

    assert QueuedJob.objects.count() == 3
    assert not QueuedJob.objects.filter(job_id=lease["id"]).exists()
    assert {field.name for field in QueuedJob._meta.get_fields()} == {
        *("job", "client_id", "priority", "job_class", "rank", "since", "max_price", "expires_at", "avoid")
    }


def test_the_rank_is_the_later_of_the_classs_time_and_the_clients_last_plus_cost_over_weight(alice, mallory, mike):
    ranks = {who: [] for who in ("alice", "mallory", "paid")}
    for _ in range(2):  # 0.01 AIT at the reference price of 0.001 is ten seconds
        ranks["alice"].append(Job.objects.get(pk=submit(alice)["id"]).rank)
    assert len(mike.poll()) == 1
    ranks["mallory"].append(Job.objects.get(pk=submit(mallory)["id"]).rank)
    ranks["paid"].append(Job.objects.get(pk=submit(alice, priority=10, max_price={"amount": "0.015"})["id"]).rank)

    assert ranks == {
        "alice": [10 * SECOND, 20 * SECOND],
        "mallory": [20 * SECOND],  # the class's time is the rank that was claimed
        "paid": [10 * SECOND + 10 * SECOND // 32],
    }
    assert JobClass.objects.aggregate(Max("vtime"))["vtime__max"] == 10 * SECOND


def test_a_job_in_a_class_that_does_not_fit_is_never_looked_at(alice, mike):
    """Ten thousand at the head of the queue do not stand in the way of the one behind them."""
    submit(alice, constraints={"gpu_model": "nvidia/any"}, priority=10)
    job = submit(alice)

    assert [lease["id"] for lease in mike.poll()] == [job["id"]]
    assert Job.objects.get(state="queued").priority == 10


@pytest.mark.parametrize("shape", list(claims._shapes(1)))
def test_a_claim_reads_the_heads_of_classes_and_not_the_queue(db, shape):
    """The benchmark's fillings with twenty thousand jobs: pages that a claim touches, counted by the planner."""
    (key, _) = claims._miners()
    for part in claims._shapes(1)[shape](20_000):
        database.rows(claims._FILL.format(**part) + " RETURNING job_id")
    call = "SELECT * FROM gpu_claim(%s::uuid, 1, NULL)"
    assert len(json.loads(database.rows(call, (key,))[0][1])) == 1

    (plan,) = database.row(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {call}", (key,))

    (top,) = json.loads(plan) if isinstance(plan, str) else plan
    pages = top["Plan"]["Shared Hit Blocks"] + top["Plan"]["Shared Read Blocks"]
    assert pages < 4000, pages
    assert Job.objects.filter(state="leased").count() == 2
