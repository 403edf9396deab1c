"""Claiming: which miner may have which job, in which order, and each job exactly once."""

import time

import pytest

from aitbc.core.ids import uuid7
from aitbc.core.testing import cast
from aitbc.core.testing.cast import AIT, MATMUL, job_body
from apps.gpu.models import Job, Miner, QueuedJob
from apps.gpu.services import leases, submission
from apps.gpu.services.miners import DeviceClaim
from apps.gpu.tests.steps import fail, read, refused, submit
from apps.trading.services.audit import audit

H200 = {"kind": "cuda", "model": "NVIDIA H200", "memory_mb": 143_771, "cuda": "12.4"}
RADEON = {"kind": "rocm", "model": "AMD Radeon RX 7900", "memory_mb": 24_560}
CPU = {"kind": "cpu", "model": "Test CPU", "memory_mb": 16_384}


def device(**facts) -> DeviceClaim:
    return DeviceClaim(uuid=f"GPU-{uuid7()}", **facts)


def claims(miner, **body) -> list[str]:
    return [lease["id"] for lease in miner.poll(**body)]


@pytest.mark.parametrize(
    ("constraints", "facts", "fits"),
    [
        ({}, CPU, True),
        ({"region": "eu"}, CPU, True),
        ({"region": "us"}, CPU, False),
        ({"region": "e"}, CPU, False),
        ({"gpu_model": "NVIDIA H200"}, H200, True),
        ({"gpu_model": "nvidia h200"}, H200, True),
        ({"gpu_model": "NVIDIA H100"}, H200, False),
        ({"gpu_model": "H200"}, H200, False),
        ({"gpu_model": "nvidia/any"}, H200, True),
        ({"gpu_model": "NVIDIA/Any"}, H200, True),
        ({"gpu_model": "nvidia/any"}, RADEON, False),
        ({"gpu_model": "nvidia/any"}, CPU, False),
        ({"gpu_model": "Test CPU"}, CPU, True),
        ({"min_vram_gb": 16}, CPU, True),
        ({"min_vram_gb": 16.01}, CPU, False),
        ({"min_vram_gb": 140}, H200, True),
        ({"min_vram_gb": 141}, H200, False),
        ({"cuda": "12.4"}, H200, True),
        ({"cuda": "12.10"}, H200, False),
        ({"cuda": "12.5"}, H200, False),
        ({"cuda": "12.3.9"}, H200, True),
        ({"cuda": "12.4.0"}, H200, True),
        ({"cuda": "12.4.1"}, H200, False),
        ({"cuda": "9.2"}, H200, True),
        ({"cuda": "11"}, H200, True),
        ({"cuda": "12"}, H200 | {"cuda": "12"}, True),
        ({"cuda": "12.0"}, H200 | {"cuda": "12"}, True),
        ({"cuda": "12.2"}, H200 | {"cuda": "12.10"}, True),
        ({"cuda": "12.0"}, CPU, False),
        ({"models": []}, CPU, True),
        ({"models": ["bert"]}, CPU, True),
        ({"models": ["bert", "llama"]}, CPU, True),
        ({"models": ["bert", "gpt"]}, CPU, False),
        (
            {"gpu_model": "nvidia/any", "min_vram_gb": 80, "cuda": "12.1", "region": "eu", "models": ["bert"]},
            H200,
            True,
        ),
        (
            {"gpu_model": "nvidia/any", "min_vram_gb": 80, "cuda": "12.1", "region": "us", "models": ["bert"]},
            H200,
            False,
        ),
    ],
)
def test_constraints_decide(alice, constraints, facts, fits):
    miner = cast.seller("mike", device=device(**facts), models=("bert", "llama"))
    job = submit(alice, constraints=constraints)

    assert claims(miner) == ([job["id"]] if fits else [])


def test_one_device_must_have_all_that_is_asked_of_a_device(alice):
    miner = cast.seller("mike", device=device(**RADEON))
    Miner.objects.get(pk=miner.miner_id).devices.create(
        uuid="GPU-small", kind="cuda", model="NVIDIA T4", memory_mb=15_360, cuda="12.4"
    )

    submit(alice, constraints={"gpu_model": "nvidia/any", "min_vram_gb": 20})
    assert claims(miner) == []
    fitting = submit(alice, constraints={"gpu_model": "nvidia/any", "min_vram_gb": 15})
    assert claims(miner) == [fitting["id"]]


def test_a_device_that_is_gone_counts_no_more(alice):
    miner = cast.seller("mike", device=device(**H200))
    Miner.objects.get(pk=miner.miner_id).devices.update(active=False)

    submit(alice, constraints={"gpu_model": "nvidia/any"})

    assert claims(miner) == []


@pytest.mark.parametrize(
    ("max_price", "price", "fits"),
    [
        ("0.001", "0.001", True),
        ("0.000999999999999999", "0.001", False),
        ("1", "0.001", True),
        ("0.000000000000000001", "0.000000000000000001", True),
    ],
)
def test_a_job_must_pay_for_a_second(alice, max_price, price, fits):
    miner = cast.seller("mike", price=price)
    job = submit(alice, max_price={"amount": max_price})

    assert claims(miner) == ([job["id"]] if fits else [])


def test_the_lease_says_what_was_agreed(alice, mike):
    job = submit(alice, max_price={"amount": "0.0125"})

    (lease,) = mike.poll()

    assert lease["input"] == MATMUL
    assert lease["unit_price"] == {"amount": "0.001", "asset": "AIT"}
    assert (lease["max_units"], lease["max_seconds"], lease["attempt"]) == (12_500, 12.5, 1)
    assert lease["miner"] == str(mike.miner_id)
    assert len(bytes.fromhex(lease["salt"][2:])) == 32
    shown = read(alice.get(f"/v1/jobs/{job['id']}"))
    assert (shown["state"], shown["miner_id"], shown["attempts"]) == ("leased", str(mike.miner_id), 1)
    assert "salt" not in shown
    assert "lease_token" not in shown


def test_a_long_escrow_is_cut_at_the_longest_job(alice, mike):
    submit(alice, max_price={"amount": "0.9"}, kind="bench.matmul")
    Miner.objects.update(price=1)

    (lease,) = mike.poll()

    assert lease["max_units"] == 3_600_000


def test_a_miner_gets_only_its_kinds(alice):
    ocr = cast.seller("ocr", kinds=("vision.ocr",))
    both = cast.seller("both", kinds=("vision.ocr", "bench.matmul"))
    job = submit(alice)

    assert claims(ocr) == []
    assert claims(both, kinds=["vision.ocr"]) == []
    assert claims(both, kinds=["bench.matmul"]) == [job["id"]]


def test_higher_priority_first_then_the_older_one(alice):
    miner = cast.seller("mike", concurrency=10)
    low_old, low_new = submit(alice)["id"], submit(alice)["id"]
    high_old, high_new = submit(alice, priority=10)["id"], submit(alice, priority=10)["id"]
    middle = submit(alice, priority=5, constraints={"region": "eu"})["id"]

    assert claims(miner, max_jobs=2) == [high_old, high_new]
    assert claims(miner, max_jobs=10) == [middle, low_old, low_new]


def test_the_order_within_a_batch_is_kept(alice):
    miner = cast.seller("mike", concurrency=20)
    ids = [str(uuid7()) for _ in range(10)]
    jobs = [job_body(id=job_id) for job_id in reversed(ids)]
    assert alice.post("/v1/jobs/batch", {"jobs": jobs}).status_code == 207

    assert claims(miner, max_jobs=20) == list(reversed(ids))


def test_a_job_whose_time_in_the_queue_is_over_is_not_leased(alice, mike):
    from apps.gpu.tests.steps import pass_time

    job = submit(alice, ttl_seconds=60)
    pass_time(job["id"], 61)

    assert claims(mike) == []


def test_a_miner_holds_no_more_than_its_slots(alice):
    miner = cast.seller("mike", concurrency=3)
    for _ in range(5):
        submit(alice)

    first = miner.poll(max_jobs=64)
    assert len(first) == 3
    assert claims(miner, max_jobs=64) == []
    assert miner.deliver(first[0], cast.MATMUL_OUTPUT).status_code == 200
    assert fail(miner, first[1], "runtime.crashed", retryable=False).status_code == 200
    assert len(claims(miner, max_jobs=64)) == 2
    assert Job.objects.filter(state="leased").count() == 3


@pytest.mark.parametrize(
    ("state", "works"),
    [
        ("online", True),
        ("suspect", True),
        ("dead", False),
        ("draining", False),
        ("suspended", False),
        ("offline", False),
    ],
)
def test_states_in_which_a_miner_gets_work(alice, mike, state, works):
    job = submit(alice)
    Miner.objects.update(state=state)

    assert claims(mike) == ([job["id"]] if works else [])
    assert QueuedJob.objects.count() == (0 if works else 1)


def test_a_key_without_a_miner_is_told_to_register(alice):
    refused(alice.post("/v1/miners/poll", {}), 404, "miner.unregistered")


@pytest.mark.parametrize(
    "body", [{"max_jobs": 0}, {"max_jobs": 65}, {"wait_seconds": 31}, {"wait_seconds": -1}, {"x": 1}]
)
def test_a_poll_of_another_shape_is_refused(mike, body):
    refused(mike.post("/v1/miners/poll", body), 422, "request.invalid")


def test_a_wait_ends_after_its_time_with_no_jobs(mike):
    begun = time.monotonic()

    assert mike.poll(wait_seconds=0.5) == []

    assert 0.4 < time.monotonic() - begun < 3


def test_a_wait_without_a_free_place_answers_at_once_and_says_when_to_come_back(mike, monkeypatch):
    import threading

    monkeypatch.setattr(leases, "_places", threading.BoundedSemaphore(1))
    assert leases._places.acquire(blocking=False)
    begun = time.monotonic()

    response = mike.post("/v1/miners/poll", {"wait_seconds": 30})

    assert time.monotonic() - begun < 3
    assert (read(response), response["Retry-After"]) == ({"jobs": []}, "1")


def test_a_named_offer_binds_miner_and_price(alice, mike, nora, monkeypatch):
    offer = name_offer(monkeypatch, mike, unit_price=5 * 10**14)
    job = submit(alice, offer_id=str(offer), max_price={"amount": "0.0006"})

    assert claims(nora) == []
    Miner.objects.filter(pk=mike.miner_id).update(price=AIT)  # a rise after the order does not reach it
    (lease,) = mike.poll()
    assert (lease["id"], lease["unit_price"]["amount"], lease["max_units"]) == (job["id"], "0.0005", 1200)


def test_a_lower_price_than_listed_is_passed_on(alice, mike, monkeypatch):
    offer = name_offer(monkeypatch, mike, unit_price=10**15)
    submit(alice, offer_id=str(offer))
    Miner.objects.filter(pk=mike.miner_id).update(price=10**14)

    (lease,) = mike.poll()

    assert lease["unit_price"]["amount"] == "0.0001"


@pytest.mark.parametrize(
    ("change", "loc"),
    [({"max_price": {"amount": "0.0004"}}, "max_price"), ({"kind": "text.embed", "input": {"texts": ["a"]}}, "kind")],
)
def test_a_job_that_its_named_offer_cannot_serve_is_refused(alice, mike, monkeypatch, change, loc):
    offer = name_offer(monkeypatch, mike, unit_price=5 * 10**14)

    problem = refused(alice.post("/v1/jobs", job_body(offer_id=str(offer), **change)), 422, "request.invalid")

    assert problem["errors"][0]["loc"] == ["body", loc]
    assert Job.objects.count() == 0


def name_offer(monkeypatch, miner, *, unit_price: int):
    """An offer of the miner, as the port `offer.terms` tells of it."""
    from types import SimpleNamespace

    from aitbc.core import ports

    terms = SimpleNamespace(miner_id=miner.miner_id, unit_price=unit_price, kinds=("bench.matmul",))
    monkeypatch.setitem(ports._providers, "offer.terms", lambda offer: terms)
    return uuid7()


# -- many at once --------------------------------------------------------------------------------
def queue_up(client, count: int) -> None:
    order = submission.Order(kind="bench.matmul", input=MATMUL, max_price="0.0001")
    for _ in range(0, count, 100):
        outcomes = submission.submit_batch(client=client.id, orders=[order] * 100)
        assert {code for code, _ in outcomes} == {"ok"}


def test_sixteen_pollers_lease_each_of_two_thousand_jobs_exactly_once(committed_db, in_threads):
    alice = cast.person("alice")
    cast.fund(alice.id, AIT)
    queue_up(alice, 2000)
    sellers = [cast.seller(f"m{n}", price="0.0001", concurrency=1000) for n in range(16)]
    begun = time.monotonic()

    def poll_until_empty(index: int) -> list[str]:
        taken = []
        while leased := sellers[index].claim(most=8):
            taken += leased
        return taken

    taken = in_threads(poll_until_empty, 16)

    seconds = time.monotonic() - begun
    every = [job for one in taken for job in one]
    assert len(every) == 2000
    assert len(set(every)) == 2000
    assert QueuedJob.objects.count() == 0
    assert Job.objects.filter(state="leased", attempts=1).count() == 2000
    for index, seller in enumerate(sellers):
        held = Job.objects.filter(miner=seller.miner_id).values_list("id", flat=True)
        assert {str(job) for job in held} == set(taken[index])
    assert seconds < 30


def test_twenty_polls_at_once_on_five_jobs(committed_db, in_threads):
    alice = cast.person("alice")
    cast.fund(alice.id, AIT)
    jobs = {submit(alice)["id"] for _ in range(5)}
    sellers = [cast.seller(f"m{n}") for n in range(20)]

    taken = in_threads(lambda index: claims(sellers[index]), 20)

    assert sorted(job for one in taken for job in one) == sorted(jobs)


def test_one_miner_polling_from_many_threads_keeps_to_its_slots(committed_db, in_threads):
    alice = cast.person("alice")
    cast.fund(alice.id, AIT)
    queue_up(alice, 100)
    miner = cast.seller("mike", price="0.0001", concurrency=5)

    taken = in_threads(lambda _: miner.claim(most=3), 12)

    every = [job for one in taken for job in one]
    assert len(every) == len(set(every)) == 5
    assert Job.objects.filter(state="leased").count() == 5


def test_cancels_and_claims_at_once_end_without_deadlock_and_with_every_coin_accounted_for(committed_db, in_threads):
    alice = cast.person("alice")
    cast.fund(alice.id, AIT)
    queue_up(alice, 100)
    jobs = [str(job) for job in Job.objects.values_list("id", flat=True)]
    sellers = [cast.seller(f"m{n}", price="0.0001", concurrency=100) for n in range(4)]

    def act(index: int) -> list[str]:
        if index < 4:
            taken = []
            while leased := sellers[index].claim(most=4):
                taken += leased
            return taken
        answers = [(job, alice.post(f"/v1/jobs/{job}/cancel")) for job in jobs[index - 4 :: 2]]
        assert {answer.status_code for _, answer in answers} == {200}
        return []

    taken = [job for one in in_threads(act, 6) for job in one]

    assert len(taken) == len(set(taken))
    assert Job.objects.filter(state="canceled").count() == 100
    assert [claims(seller) for seller in sellers] == [[]] * 4
    assert QueuedJob.objects.count() == 0
    assert audit() == []
