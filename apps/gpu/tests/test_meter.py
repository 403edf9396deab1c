"""The meter (protocols 11 and 13): never above what was agreed, never above the platform's own clock."""

import time
from fractions import Fraction
from math import ceil

from hypothesis import given, settings
from hypothesis import strategies as st

from aitbc.core import clock, db
from aitbc.core.testing import cast
from apps.gpu.meter import bill
from apps.gpu.models import Job
from apps.gpu.tests.steps import submit

MAX = 10**38 - 1
prices = st.one_of(st.integers(1, MAX), st.integers(1, 10**19), st.sampled_from([1, 10**18, 10**18 - 1, MAX]))
times = st.integers(0, 20_000_000)
fees = st.integers(0, 2000)


@given(max_price=prices, unit_price=prices, platform_ms=times, claimed_ms=st.none() | times, fee_bps=fees)
def test_the_total_never_exceeds_the_escrow(max_price, unit_price, platform_ms, claimed_ms, fee_bps):
    max_ms = max_price * 1000 // unit_price

    made = bill(platform_ms=platform_ms, claimed_ms=claimed_ms, max_ms=max_ms, unit_price=unit_price, fee_bps=fee_bps)

    assert 0 <= made.fee <= made.total <= max_price
    assert made.total == ceil(Fraction(made.units * unit_price, 1000))
    assert made.fee == ceil(Fraction(made.total * fee_bps, 10_000))


@given(platform_ms=times, max_ms=times, claims=st.lists(times, min_size=2, max_size=2), unit_price=prices)
def test_a_claim_lowers_the_bill_and_never_raises_it(platform_ms, max_ms, claims, unit_price):
    def total(claimed_ms):
        return bill(
            platform_ms=platform_ms, claimed_ms=claimed_ms, max_ms=max_ms, unit_price=unit_price, fee_bps=250
        ).total

    lower, higher = sorted(claims)
    assert total(lower) <= total(higher) <= total(None)
    assert total(10**12) == total(None)
    assert total(0) == 0


@given(platform_ms=st.integers(-(10**6), -1))
def test_a_clock_that_went_back_bills_nothing(platform_ms):
    made = bill(platform_ms=platform_ms, claimed_ms=None, max_ms=1000, unit_price=10**15, fee_bps=250)

    assert (made.units, made.total, made.fee) == (0, 0, 0)


def test_a_bill_to_the_last_unit():
    made = bill(platform_ms=1234, claimed_ms=1233, max_ms=5000, unit_price=10**15 + 1, fee_bps=250)

    assert (made.units, made.total, made.fee) == (1233, 1_233_000_000_000_002, 30_825_000_000_001)


@given(pair=st.tuples(st.integers(0, 10**42), st.integers(1, 10**40)))
@settings(max_examples=200, deadline=None)
def test_the_databases_divisions_are_exact(django_db_setup, django_db_blocker, pair):
    """Numeric division keeps some sixteen digits: its floor and ceiling could be one off, and were."""
    a, b = pair
    with django_db_blocker.unblock():
        up, down = db.rows(
            "SELECT gpu_ceil_div(%s::numeric, %s::numeric), div(%s::numeric, %s::numeric)", (a, b, a, b)
        )[0]

    assert (int(up), int(down)) == (-(-a // b), a // b)


@given(
    slots=st.integers(1, 4),
    jobs=st.lists(st.tuples(st.integers(0, 50), st.integers(1, 400), st.none() | st.integers(0, 900)), max_size=40),
)
def test_billed_time_never_exceeds_wall_time_times_slots(slots, jobs):
    """Leases as the platform grants them: a slot is free again when its job has ended."""
    free_at, wall_end, billed = [0] * slots, 0, 0
    for pause, duration, claimed in jobs:
        slot = free_at.index(min(free_at))
        begin = free_at[slot] + pause
        free_at[slot] = begin + duration
        wall_end = max(wall_end, free_at[slot])
        billed += bill(platform_ms=duration, claimed_ms=claimed, max_ms=300, unit_price=10**15, fee_bps=250).units

    assert billed <= wall_end * slots


def test_what_a_miner_is_paid_for_fits_into_its_slots(alice):
    """The same through the services, with leases that begin and end in each other's time."""
    miner, held = cast.seller("many", concurrency=2), []
    begun = clock.database_now()
    for _ in range(12):
        submit(alice)
        held += miner.poll(max_jobs=2)
        time.sleep(0.005)
        if len(held) == 2:
            assert miner.deliver(held.pop(0), cast.MATMUL_OUTPUT).status_code == 200
    wall_ms = (clock.database_now() - begun).total_seconds() * 1000

    billed = sum(Job.objects.filter(state="completed").values_list("units_ms", flat=True))

    assert Job.objects.filter(state="completed").count() == 11
    assert wall_ms < billed <= 2 * wall_ms
