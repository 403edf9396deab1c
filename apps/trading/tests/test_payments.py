"""Escrow of jobs: opened, settled once, matured once; held = released + fee + refunded to the unit."""

import time
from collections import Counter
from contextlib import contextmanager
from uuid import UUID

import pytest
from django.db import DataError, IntegrityError, connections, transaction
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aitbc.accounts import parameters
from aitbc.core import db
from aitbc.core.ids import uuid7
from apps.gpu.meter import bill
from apps.trading.models import Account, Payment, Transfer
from apps.trading.services import ledger
from apps.trading.services.audit import audit
from apps.trading.tasks import mature
from apps.trading.tests.books import account, balance, books, user

WORKERS = 16


@pytest.fixture(autouse=True)
def _sound_in_the_end(request):
    request.getfixturevalue("committed_db" if "in_threads" in request.fixturenames else "db")
    yield
    assert audit() == []


@pytest.fixture
def client():
    client = user("client").pk
    account(1000, owner=client)
    return client


@pytest.fixture
def provider():
    return user("provider").pk


def open_payments(client, amounts, *, jobs=None):
    """(codes, jobs)"""
    jobs = jobs or [uuid7() for _ in amounts]
    ids = [uuid7() for _ in amounts]
    codes = db.value(
        "SELECT payments_open(%s::uuid[], %s::uuid[], %s::uuid[], %s::numeric[], 'AIT')",
        (ids, jobs, [client] * len(amounts), amounts),
    )
    return codes, jobs


def opened(client, amount) -> UUID:
    codes, (job,) = open_payments(client, [amount])
    assert codes == ["ok"]
    return job


def settle(*items):
    """Items are (job, provider, total, fee)."""
    jobs, providers, totals, fees = ([*column] for column in zip(*items, strict=True))
    return db.value(
        "SELECT payments_settle(%s::uuid[], %s::uuid[], %s::numeric[], %s::numeric[])", (jobs, providers, totals, fees)
    )


def of(owner, kind):
    return balance(ledger.account_id(owner=owner, kind=kind))


def fees():
    return sum(Account.objects.filter(kind="fees").values_list("posted", flat=True))


@contextmanager
def nothing_changes():
    before = books()
    yield
    assert books() == before


@contextmanager
def refusing(error, match):
    with nothing_changes(), pytest.raises(error, match=match), transaction.atomic():
        yield


# -- open --------------------------------------------------------------------------------------


def test_opening_holds_the_amount_under_the_payments_id(client):
    codes, (job,) = open_payments(client, [300])

    assert codes == ["ok"]
    payment = Payment.objects.get(job=job)
    assert (payment.state, payment.client_id, payment.provider_id) == ("escrowed", client, None)
    assert (payment.held, payment.released, payment.fee, payment.refunded) == (300, 0, 0, 0)
    hold = Transfer.objects.get(pk=payment.pk)
    assert (hold.kind, hold.state, hold.amount, hold.reference) == ("job.hold", "pending", 300, job)
    assert of(client, "available") == (1000, 300)


def test_opening_answers_per_payment(client):
    codes, jobs = open_payments(client, [600, 500, 400, 0])
    assert codes == ["ok", "insufficient_funds", "ok", "amount_not_positive"]
    assert set(Payment.objects.values_list("job", flat=True)) == {jobs[0], jobs[2]}
    assert of(client, "available") == (1000, 1000)


def test_a_client_without_an_account_is_refused_and_gets_none():
    stranger = user("stranger").pk
    with nothing_changes():
        assert open_payments(stranger, [1, 2])[0] == ["insufficient_funds"] * 2
    assert not Account.objects.filter(owner_id=stranger).exists()


def test_other_money_of_the_client_is_not_spent():
    miner = user("miner").pk
    external = ledger.account_id(owner=None, kind="external", chain="test")
    for kind, chain in (("maturing", ""), ("claimable", "test")):
        target = ledger.account_id(owner=miner, kind=kind, chain=chain)
        item = ledger.Item(id=uuid7(), action="transfer", kind="t", debit=external, credit=target, amount=9)
        assert ledger.apply([item]) == ["ok"]
    with nothing_changes():
        assert open_payments(miner, [1])[0] == ["insufficient_funds"]
    db.rows("SELECT payments_mature(10)")
    _drain(miner, external)


def _drain(miner, external):
    """Back out of the maturing account: there is no payment behind what the test put there."""
    source = ledger.account_id(owner=miner, kind="maturing")
    item = ledger.Item(id=uuid7(), action="transfer", kind="t", debit=source, credit=external, amount=9)
    assert ledger.apply([item]) == ["ok"]


def test_a_job_has_one_payment(client):
    job = opened(client, 10)
    with refusing(IntegrityError, "trading_payment_job"):
        open_payments(client, [10], jobs=[job])


# -- settle ------------------------------------------------------------------------------------

SETTLEMENTS = {
    "all of it": (300, 8, "released", (292, 8, 0)),
    "a part of it": (120, 3, "partially_released", (117, 3, 180)),
    "one unit, all fee": (1, 1, "partially_released", (0, 1, 299)),
    "no fee": (300, 0, "released", (300, 0, 0)),
    "nothing": (0, 0, "refunded", (0, 0, 300)),
}


@pytest.mark.parametrize("case", SETTLEMENTS)
def test_settling_splits_what_was_held(case, client, provider):
    total, fee, state, (released, kept, refunded) = SETTLEMENTS[case]
    job = opened(client, 300)

    assert settle((job, provider, total, fee)) == 1

    payment = Payment.objects.get(job=job)
    assert (payment.state, payment.released, payment.fee, payment.refunded) == (state, released, kept, refunded)
    assert payment.provider_id == (provider if total else None)
    assert (payment.matures_at is not None) == (released > 0)
    assert of(client, "available") == (1000 - total, 0)
    assert of(provider, "maturing") == (released, 0)
    assert fees() == kept
    assert Transfer.objects.get(pk=payment.pk).state == ("posted" if total else "voided")


def test_settling_twice_pays_once(client, provider):
    job = opened(client, 300)
    assert settle((job, provider, 100, 3)) == 1
    with nothing_changes():
        assert settle((job, provider, 100, 3)) == 0
        assert settle((job, user("thief").pk, 300, 0)) == 0
        assert settle((job, None, 0, 0)) == 0


def test_an_unknown_job_is_settled_by_nothing(provider):
    with nothing_changes():
        assert settle((uuid7(), provider, 10, 1)) == 0


def test_a_batch_settles_each_job_to_its_provider(client, provider):
    other = user("other").pk
    jobs = [opened(client, 100) for _ in range(4)]
    count = settle(
        (jobs[3], other, 40, 4), (jobs[0], provider, 100, 10), (jobs[1], None, 0, 0), (jobs[2], provider, 7, 7)
    )
    assert count == 4
    assert (of(provider, "maturing"), of(other, "maturing")) == ((90, 0), (36, 0))
    assert fees() == 21
    assert of(client, "available") == (1000 - 147, 0)


@pytest.mark.parametrize(("total", "fee"), [(301, 8), (10, 11), (-1, 0), (10, -1), (None, 0), (10, None), (0, 1)])
def test_an_impossible_split_is_refused_with_all_of_its_batch(total, fee, client, provider):
    good, bad = opened(client, 300), opened(client, 300)
    with refusing(IntegrityError, "cannot release"):
        settle((good, provider, 10, 1), (bad, provider, total, fee))


@pytest.mark.parametrize(("total", "fee"), [("1.5", "0"), ("10", "0.5"), ("NaN", "0"), ("10", "NaN")])
def test_a_split_is_of_whole_units(total, fee, client, provider):
    job = opened(client, 300)
    with refusing((IntegrityError, DataError), "payment_adds_up|refused|cannot release"):
        settle((job, provider, total, fee))


def test_an_earning_needs_somebody_who_earned_it(client):
    job = opened(client, 300)
    with refusing(IntegrityError, "cannot release"):
        settle((job, None, 10, 1))


def test_one_job_twice_in_a_batch_is_a_fault_of_the_caller(client, provider):
    job = opened(client, 300)
    with refusing(IntegrityError, "settled twice in one call"):
        settle((job, provider, 10, 1), (job, provider, 10, 1))


@given(
    prices=st.lists(
        st.tuples(
            st.integers(1, 10**20),
            st.integers(0, 10**7),
            st.integers(1, 10**18),
            st.sampled_from([0, 1, 250, 333, 2000]),
        ),
        min_size=1,
        max_size=6,
    )
)
@settings(
    max_examples=25,
    deadline=None,
    database=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
def test_no_unit_is_made_or_lost(prices):
    """Bills of any size: what was held comes back in its parts, and all accounts together stay the same."""
    client, provider = user("client").pk, user("provider").pk
    wallet = account(10**22, owner=client)
    kept = fees()
    bills = [
        bill(platform_ms=ms, claimed_ms=None, max_ms=held * 1000 // price, unit_price=price, fee_bps=bps)
        for held, ms, price, bps in prices
    ]
    codes, jobs = open_payments(client, [held for held, *_ in prices])
    assert set(codes) == {"ok"}

    settle(*((job, provider, one.total, one.fee) for job, one in zip(jobs, bills, strict=True)))

    total, fee = sum(one.total for one in bills), sum(one.fee for one in bills)
    assert balance(wallet) == (10**22 - total, 0)
    assert of(provider, "maturing") == (total - fee, 0)
    assert fees() - kept == fee
    for payment in Payment.objects.filter(job__in=jobs):
        assert payment.held == payment.released + payment.fee + payment.refunded
    assert sum(Account.objects.values_list("posted", flat=True)) == 0


@given(ms=st.integers(0, 10**8), price=st.integers(1, 10**20), bps=st.integers(0, 2000), held=st.integers(1, 10**30))
def test_rounding_never_favours_the_payer(ms, price, bps, held):
    """Total and fee are rounded up, by less than one unit each, and stay within what was held."""
    found = bill(platform_ms=ms, claimed_ms=None, max_ms=held * 1000 // price, unit_price=price, fee_bps=bps)
    assert 0 <= found.total * 1000 - found.units * price < 1000
    assert 0 <= found.fee * 10_000 - found.total * bps < 10_000
    assert found.fee <= found.total <= held


# -- mature ------------------------------------------------------------------------------------


def earned(client, provider, amount, *, window=0):
    parameters.change(name="maturing_seconds", value=window, by=None)
    job = opened(client, amount)
    settle((job, provider, amount, 1))
    return job


def test_an_earning_matures_after_its_window_and_once(client, provider):
    job = earned(client, provider, 100)
    assert (of(provider, "maturing"), of(provider, "available")) == ((99, 0), (0, 0))

    assert mature() == 1

    assert (of(provider, "maturing"), of(provider, "available")) == ((0, 0), (99, 0))
    assert Payment.objects.get(job=job).matured_at is not None
    with nothing_changes():
        assert mature() == 0


def test_an_earning_in_its_window_stays(client, provider):
    job = earned(client, provider, 100, window=600)
    payment = Payment.objects.get(job=job)
    assert (payment.matures_at - payment.resolved_at).total_seconds() == pytest.approx(600, abs=0.1)
    with nothing_changes():
        assert mature() == 0


def test_the_databases_clock_ends_the_window(client, provider):
    earned(client, provider, 100, window=2)
    assert mature() == 0
    time.sleep(2.05)
    assert mature() == 1
    assert of(provider, "available") == (99, 0)


def test_one_transfer_per_provider_carries_all_that_is_due(client, provider):
    other = user("other").pk
    for who, amount in ((provider, 100), (provider, 50), (other, 30)):
        earned(client, who, amount)
    waiting = earned(client, other, 20, window=600)

    assert mature() == 3

    assert (of(provider, "available"), of(other, "available")) == ((148, 0), (29, 0))
    assert of(other, "maturing") == (19, 0)
    assert Transfer.objects.filter(kind="earning.matured").count() == 2
    assert Payment.objects.get(job=waiting).matured_at is None


def test_maturing_takes_the_oldest_up_to_its_limit(client, provider):
    jobs = [earned(client, provider, amount) for amount in (10, 20, 40)]
    assert mature(limit=2) == 2
    assert of(provider, "available") == (28, 0)
    assert [Payment.objects.get(job=job).matured_at is None for job in jobs] == [False, False, True]


def test_what_was_refunded_has_nothing_to_mature(client, provider):
    parameters.change(name="maturing_seconds", value=0, by=None)
    settle((opened(client, 10), None, 0, 0), (opened(client, 10), provider, 1, 1))
    with nothing_changes():
        assert mature() == 0


# -- at once -----------------------------------------------------------------------------------


def test_a_balance_for_one_job_escrows_one_of_sixteen(in_threads):
    client = user("client").pk
    account(10, owner=client)
    codes = Counter(in_threads(lambda _: open_payments(client, [10])[0][0], WORKERS))
    assert codes == {"ok": 1, "insufficient_funds": WORKERS - 1}
    assert Payment.objects.count() == 1


def test_settled_by_sixteen_it_is_paid_once(in_threads):
    client, provider = user("client").pk, user("provider").pk
    account(1000, owner=client)
    jobs = [opened(client, 100) for _ in range(5)]
    items = [(job, provider, 100, 3) for job in jobs]

    resolved = in_threads(lambda i: settle(*(items if i % 2 else items[::-1])), WORKERS)

    assert sum(resolved) == 5
    assert (of(provider, "maturing"), fees()) == ((485, 0), 15)


def test_first_earnings_of_many_providers_in_any_order_do_not_deadlock(in_threads, slow_accounts):
    """Each settlement makes the maturing accounts that are missing; all make them in one order."""
    client = user("client").pk
    account(1000, owner=client)
    providers = [user("provider").pk for _ in range(3)]
    batches = [[(opened(client, 10), who, 10, 1) for who in order] for order in (providers, providers[::-1])]
    slow_accounts()

    assert in_threads(lambda i: settle(*batches[i]), 2) == [3, 3]

    assert [of(who, "maturing") for who in providers] == [(18, 0)] * 3


def test_matured_by_sixteen_each_earning_arrives_once(in_threads):
    client, providers = user("client").pk, [user("provider").pk for _ in range(4)]
    account(1000, owner=client)
    for i in range(40):
        earned(client, providers[i % 4], 11)

    matured = in_threads(lambda _: sum(mature(limit=3) for _ in range(20)), WORKERS)

    assert sum(matured) == 40
    assert [of(who, "available") for who in providers] == [(100, 0)] * 4
    assert [of(who, "maturing") for who in providers] == [(0, 0)] * 4


def test_maturing_beside_settling_does_not_deadlock(in_threads):
    client, providers = user("client").pk, [user("provider").pk for _ in range(3)]
    account(10_000, owner=client)
    parameters.change(name="maturing_seconds", value=0, by=None)
    jobs = [[opened(client, 10) for _ in range(9)] for _ in range(8)]

    def work(index):
        if index % 2:
            return sum(mature(limit=5) for _ in range(10))
        items = [(job, providers[(index + i) % 3], 10, 1) for i, job in enumerate(jobs[index // 2])]
        return sum(settle(*items[i : i + 3]) for i in (0, 3, 6))

    done = in_threads(work, WORKERS)
    assert sum(done[::2]) == 72
    assert sum(done[1::2]) + mature(limit=1000) == 72
    assert sum(of(who, "available")[0] for who in providers) == 72 * 9


@pytest.fixture
def slow_accounts(committed_db):
    """Call it, and from then on a new account takes a moment, so that rivals surely meet half way."""
    with connections["owner"].cursor() as cursor:
        yield lambda: cursor.execute(
            """CREATE FUNCTION test_dawdle() RETURNS trigger LANGUAGE plpgsql AS
               'BEGIN PERFORM pg_sleep(0.2); RETURN NEW; END';
               CREATE TRIGGER test_dawdle BEFORE INSERT ON trading_account
                 FOR EACH ROW EXECUTE FUNCTION test_dawdle()"""
        )
        cursor.execute("DROP FUNCTION IF EXISTS test_dawdle() CASCADE")
