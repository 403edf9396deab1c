"""The order of the queue: shares by weight, no starvation, what priority costs, and how much one client may queue."""

import random
from decimal import Decimal
from itertools import combinations

import orjson
import pytest

from aitbc.accounts import parameters
from aitbc.core import db as database
from aitbc.core.ids import uuid7
from aitbc.core.testing import cast
from aitbc.core.testing.cast import AIT, MATMUL, job_body
from apps.gpu.models import Job, JobClass, Miner, QueuedJob
from apps.gpu.services import leases, submission
from apps.gpu.tests.steps import fail, read, refused, submit
from apps.gpu.tests.test_claiming import claims, name_offer
from apps.trading.models import Payment
from apps.trading.services.audit import audit


def queue(client, *prices: str, priority: int = 0, **wishes) -> list[str]:
    orders = [
        submission.Order(kind="bench.matmul", input=MATMUL, max_price=price, priority=priority, **wishes)
        for price in prices
    ]
    outcomes = submission.submit_batch(client=client.id, orders=orders)
    assert [outcome[0] for outcome in outcomes] == ["ok"] * len(prices)
    return [orjson.loads(document)["id"] for _, document in outcomes]


def rich(name: str) -> cast.Person:
    who = cast.person(name)
    cast.fund(who.id, 1000 * AIT)
    return who


def cost_of(job: Job) -> int:
    return database.value("SELECT gpu_cost(gpu_budget(j), j.priority) FROM gpu_job j WHERE j.id = %s", (job.pk,))


# -- shares --------------------------------------------------------------------------------------
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_shares_of_backlogged_clients_follow_their_weights_within_one_job_each(db, seed):
    """In any prefix of the service; jobs of random length in random classes, submitted one client after the other."""
    chance = random.Random(seed)
    clients = [(rich(f"c{n}"), priority) for n, priority in enumerate((0, 0, 2, 4))]
    miner = cast.seller("mike", concurrency=1000, price="0.0001")
    for client, priority in clients:
        for region in (None, "eu"):
            prices = [f"0.00{chance.randint(10, 99)}" for _ in range(25)]
            queue(client, *prices, priority=priority, region=region)
    owners = {str(job.pk): (job.client_id, cost_of(job)) for job in Job.objects.all()}
    left = {client.id: 50 for client, _ in clients}
    served = dict.fromkeys(left, 0)
    longest = {c: max(cost for who, cost in owners.values() if who == c) for c in left}

    while min(left.values()) > 0:
        (job,) = miner.claim(most=1)
        client, cost = owners[job]
        served[client] += cost
        left[client] -= 1
        for one, other in combinations(left, 2):
            assert abs(served[one] - served[other]) <= longest[one] + longest[other], (seed, left)

    counts = sorted(50 - count for count in left.values())
    assert counts[-1] == 50
    assert 6 <= counts[0] <= 13  # weights of 1, 1, 2 and 4


def test_one_client_with_ninety_nine_percent_of_the_queue_starves_nobody(db):
    hog, late = rich("hog"), rich("late")
    miner = cast.seller("mike", concurrency=1000, price="0.0001")
    queue(hog, *["0.001"] * 99, region="eu")
    queue(hog, *["0.001"] * 99)
    for _ in range(30):
        miner.claim(most=1)

    mine = queue(late, *["0.001"] * 2)
    next_six = [miner.claim(most=1)[0] for _ in range(6)]

    assert set(mine) <= set(next_six)


def test_a_client_gains_nothing_by_spreading_over_classes(db):
    """The clock of a class that nobody used lags behind; its first job does not."""
    hog, plain = rich("hog"), rich("plain")
    miner = cast.seller("mike", concurrency=1000, price="0.0001", models=tuple(f"m{n}" for n in range(20)))
    queue(plain, *["0.001"] * 30)
    for _ in range(10):
        miner.claim(most=1)
    for n in range(20):
        queue(hog, "0.001", models=(f"m{n}",))

    owners = [Job.objects.get(pk=miner.claim(most=1)[0]).client_id for _ in range(20)]

    assert 9 <= owners.count(plain.id) <= 11


def test_an_idle_client_saves_nothing_up_and_owes_nothing(db):
    early, late = rich("early"), rich("late")
    miner = cast.seller("mike", concurrency=1000, price="0.0001")
    queue(early, *["0.001"] * 60)
    for _ in range(40):
        miner.claim(most=1)
    queue(late, *["0.001"] * 20)

    owners = [Job.objects.get(pk=miner.claim(most=1)[0]).client_id for _ in range(20)]

    assert 9 <= owners.count(early.id) <= 11


def test_a_returned_job_is_in_front_of_all_that_came_later(alice, mallory, mike, nora):
    first = submit(alice)["id"]
    (lease,) = mike.poll()
    later = [submit(mallory)["id"], submit(alice)["id"]]
    assert lease["id"] == first

    assert fail(mike, lease, "runtime.crashed").status_code == 200

    assert claims(nora) == [first]
    assert QueuedJob.objects.filter(pk__in=later).count() == 2


# -- priority ------------------------------------------------------------------------------------
def test_priority_costs_a_surcharge_inside_the_escrow(alice, mike):
    job = submit(alice, priority=10, max_price={"amount": "0.015"})

    (lease,) = mike.poll()

    assert lease["unit_price"]["amount"] == "0.0015"  # ten steps of 5 % on 0.001
    assert lease["max_units"] == 10_000
    answer = read(mike.deliver(lease, cast.MATMUL_OUTPUT, claimed_ms=0))
    assert answer["receipt"]["statement"]["unit_price"] == str(15 * 10**14)
    assert Payment.objects.get(job=job["id"]).held == 15 * 10**15
    assert audit() == []


def test_a_job_must_pay_for_a_second_with_its_surcharge(alice, mike):
    short = submit(alice, priority=10, max_price={"amount": "0.001499999999999999"})
    assert claims(mike) == []
    job = submit(alice, priority=10, max_price={"amount": "0.0015"})

    (lease,) = mike.poll()

    assert (lease["id"], lease["max_units"]) == (job["id"], 1000)
    assert QueuedJob.objects.filter(pk=short["id"]).exists()


def test_a_named_offers_job_must_pay_the_surcharge_too(alice, mike, monkeypatch):
    offer = str(name_offer(monkeypatch, mike, unit_price=10**15))
    body = {"offer_id": offer, "priority": 2}

    refused(alice.post("/v1/jobs", job_body(max_price={"amount": "0.00109"}, **body)), 422, "request.invalid")
    submit(alice, max_price={"amount": "0.0011"}, **body)

    assert [lease["unit_price"]["amount"] for lease in mike.poll()] == ["0.0011"]


def test_the_weight_of_priority_is_capped(db):
    costs = [database.value("SELECT gpu_cost(%s, %s)", (Decimal(32 * 10**15), priority)) for priority in (0, 2, 9, 10)]
    assert costs == [32_000_000, 16_000_000, 1_414_214, 1_000_000]

    parameters.change(name="priority_weight_cap", value=4, by=None)

    assert database.value("SELECT gpu_cost(%s, 10)", (Decimal(32 * 10**15),)) == 8_000_000


# -- what a job may ask for ----------------------------------------------------------------------
@pytest.mark.parametrize(("score", "asked", "fits"), [
    (None, 0, False), (None, None, True), (0.9, 0.9, True), (0.9, 0.91, False), (1, 0.5, True),
])  # fmt: skip
def test_reliability_is_part_of_the_wishes(alice, mike, score, asked, fits):
    Miner.objects.update(reliability=score)
    job = submit(alice, constraints={"min_reliability": asked} if asked is not None else {})

    assert claims(mike) == ([job["id"]] if fits else [])


def test_a_reliability_beyond_its_scale_is_refused(alice):
    refused(alice.post("/v1/jobs", job_body(constraints={"min_reliability": 1.1})), 422, "request.invalid")
    assert Job.objects.count() == 0


def test_another_reliability_under_the_same_id_is_another_job(alice):
    body = job_body(id=str(uuid7()), constraints={"min_reliability": 0.5})
    assert alice.post("/v1/jobs", body).status_code == 201

    refused(alice.post("/v1/jobs", body | {"constraints": {"min_reliability": 0.6}}), 409, "job.exists")


# -- quotas --------------------------------------------------------------------------------------
def test_a_client_may_queue_so_many_jobs_and_more_when_some_have_run(alice, mallory):
    miner = cast.seller("mike", concurrency=10)
    parameters.change(name="max_queued_jobs", value=3, by=None)
    submit(mallory)
    for _ in range(2):
        submit(alice)
    bodies = [job_body(id=str(uuid7())) for _ in range(3)]

    items = read(alice.post("/v1/jobs/batch", {"jobs": bodies}))["items"]

    assert [item["status"] for item in items] == [201, 429, 429]
    before = Payment.objects.count()
    full = alice.post("/v1/jobs", job_body())
    refused(full, 429, "job.queue_full")
    assert full["Retry-After"] == "10"
    assert (Payment.objects.count(), Job.objects.filter(client=alice.id).count()) == (before, 3)
    assert alice.post("/v1/jobs", bodies[0]).status_code == 200  # it is queued already
    miner.claim(most=4)
    submit(alice)


def test_a_client_may_ask_for_so_many_different_things(alice, mallory):
    parameters.change(name="max_queued_classes", value=2, by=None)
    submit(alice, constraints={"region": "a"})
    submit(alice, constraints={"region": "b"})

    refused(alice.post("/v1/jobs", job_body()), 429, "job.queue_full")

    submit(mallory)
    assert JobClass.objects.count() == 3


def test_submissions_at_once_never_exceed_the_quota(committed_db, in_threads):
    parameters.change(name="max_queued_jobs", value=20, by=None)
    alice = rich("alice")

    taken = in_threads(lambda _: [alice.post("/v1/jobs", job_body()).status_code for _ in range(5)], 8)

    codes = [code for one in taken for code in one]
    assert (codes.count(201), codes.count(429)) == (20, 20)
    assert QueuedJob.objects.count() == 20


def test_sixteen_submitters_and_claims_at_once_end_without_a_deadlock(committed_db, in_threads):
    """Batches of many classes in both orders, while miners move the clocks of the same classes."""
    clients = [rich(f"c{n}") for n in range(4)]
    sellers = [cast.seller(f"m{n}", price="0.0001", concurrency=1000) for n in range(4)]
    regions = [None, "eu"]

    def act(index: int) -> int:
        if index >= 12:
            return sum(len(sellers[index - 12].claim(most=4)) for _ in range(20))
        for turn in range(3):
            order = regions[:: 1 if (index + turn) % 2 else -1]
            orders = [
                submission.Order(kind="bench.matmul", input=MATMUL, max_price="0.001", region=r, priority=p)
                for r in order for p in (0, 3) for _ in range(5)
            ]  # fmt: skip
            outcomes = submission.submit_batch(client=clients[index % 4].id, orders=orders)
            assert [outcome[0] for outcome in outcomes] == ["ok"] * 20
        return 0

    claimed = sum(in_threads(act, 16))

    assert Job.objects.count() == 12 * 3 * 20
    assert Job.objects.filter(state="leased").count() == claimed
    assert QueuedJob.objects.count() == 720 - claimed
    assert leases.claim(key=sellers[0].principal.key_id, most=1, kinds=None) != "[]"
    assert audit() == []
