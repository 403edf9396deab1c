"""Prepaid streams: paid by the second to the unit, ended at their deadline, nothing lost on the way."""

from collections import Counter
from datetime import datetime, timedelta
from fractions import Fraction
from math import ceil, floor
from time import sleep
from types import SimpleNamespace

import pytest
from django.db import IntegrityError, connections, transaction
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from orjson import loads

from aitbc.accounts import parameters
from aitbc.core import db
from aitbc.core.errors import Conflict, DomainError, Forbidden, Invalid, NotFound
from aitbc.core.ids import uuid7
from aitbc.core.models import OutboxEvent
from aitbc.core.testing import cast
from aitbc.core.testing.cast import AIT
from apps.gpu.tests.steps import read, refused
from apps.trading.models import Account, Stream
from apps.trading.services import streams
from apps.trading.services.audit import audit
from apps.trading.tasks import run_streams
from apps.trading.tests.books import account, balance, user
from apps.trading.tests.test_payments import fees, of

TABLES = ("trading_stream", "trading_stream_deposit", "trading_stream_payee", "trading_account", "trading_entry")


@pytest.fixture(autouse=True)
def _sound_in_the_end(request):
    commits = {"in_threads", "committed_db", "at"} & set(request.fixturenames)
    request.getfixturevalue("committed_db" if commits else "db")
    yield
    assert audit() == []


@pytest.fixture
def owner():
    owner = user("owner").pk
    account(10_000_000, owner=owner)
    return owner


@pytest.fixture
def payee():
    return user("payee").pk


@pytest.fixture
def at(committed_db):
    """Call it with a stream and seconds: so long it has run, as far as the database's clock can tell."""

    def age(stream, seconds):
        names = ("settled_at", "ends_at", "due_at", "created_at")
        back = ", ".join(f"{name} = {name} - %(s)s * interval '1 microsecond'" for name in names)
        with connections["owner"].cursor() as cursor:
            cursor.execute(
                f"UPDATE trading_stream SET {back} WHERE id = %(id)s", {"s": round(seconds * 1_000_000), "id": stream}
            )

    return age


def opened(owner, *payees, deposit=1000, **terms):
    document = streams.open_stream(owner=owner, payees=dict(payees), deposit=deposit, **terms)
    return loads(document)["id"]


def all_rows():
    return [db.rows(f"SELECT t::text FROM {table} t ORDER BY 1") for table in TABLES]


def seconds(document):
    """From its opening to its end."""
    moments = [datetime.fromisoformat(document[name]) for name in ("created_at", "ends_at")]
    return (moments[1] - moments[0]).total_seconds()


def row(stream):
    """The whole row, with the columns that the console does not show."""
    found = loads(db.value("SELECT row_to_json(s)::text FROM trading_stream s WHERE id = %s", (stream,)))
    moments = {name: found[name] and datetime.fromisoformat(found[name]) for name in found if name[-3:] == "_at"}
    return SimpleNamespace(**found | moments)


def events():
    return [name for (name,) in OutboxEvent.objects.order_by("id").values_list("event")]


def shares_at(stream, seconds):
    """What each payee is owed so many seconds after the last settlement, by the database's own rule."""
    return db.rows(
        """SELECT x.payee, x.gross::text, x.fee::text, x.carry::text FROM trading_stream s
             CROSS JOIN LATERAL stream_shares(s, s.settled_at + %s * interval '1 microsecond') x
            WHERE s.id = %s ORDER BY x.payee""",
        (round(seconds * 1_000_000), stream),
    )


# -- open --------------------------------------------------------------------------------------


def test_opening_moves_the_deposit_into_an_escrow_account_of_its_own(owner, payee):
    first = opened(owner, (payee, 10), deposit=1000)
    second = opened(owner, (payee, 5), deposit=300)

    escrows = Account.objects.filter(owner_id=owner, kind="escrow").order_by("shard")
    assert list(escrows.values_list("shard", "posted", "held")) == [(0, 1000, 0), (1, 300, 0)]
    assert of(owner, "available") == (10_000_000 - 1300, 0)
    found = row(first)
    assert (found.state, found.rate, found.deposited, found.paid) == ("open", 10, 1000, 0)
    assert found.ends_at - found.created_at == timedelta(seconds=100)
    assert row(second).ends_at - row(second).created_at == timedelta(seconds=60)


def test_the_account_of_a_closed_stream_serves_the_next_one(owner, payee):
    first = opened(owner, (payee, 10))
    streams.act("close", user=owner, stream=first)
    opened(owner, (payee, 10))
    assert Account.objects.filter(owner_id=owner, kind="escrow").count() == 1


def refuses(kind, code, **changes):
    before = all_rows()
    terms = {"deposit": 1000} | changes
    with pytest.raises(kind) as caught:
        streams.open_stream(**terms)
    assert caught.value.code == code
    assert all_rows() == before


def test_impossible_terms_are_refused_and_change_nothing(owner, payee):
    refuses(Invalid, "stream.payee", owner=owner, payees={owner: 1})
    refuses(Invalid, "stream.payee", owner=owner, payees={uuid7(): 1})
    for rate in (0, -1):
        refuses(Invalid, "stream.rate", owner=owner, payees={payee: rate})
    for deposit in (0, -1):
        refuses(Invalid, "stream.deposit", owner=owner, payees={payee: 1}, deposit=deposit)
    refuses(Conflict, "payment.insufficient_funds", owner=owner, payees={payee: 1}, deposit=10_000_001)
    refuses(Conflict, "payment.insufficient_funds", owner=user("poor").pk, payees={payee: 1})
    for topup, cap in ((1, 0), (0, 1), (-1, 5)):
        refuses(Invalid, "stream.topup", owner=owner, payees={payee: 1}, topup=topup, topup_cap=cap)
    stream = opened(owner, (payee, 1))
    refuses(Conflict, "stream.exists", owner=owner, payees={payee: 1}, stream=stream)


def test_a_stream_lasts_at_most_a_hundred_years(payee):
    rich = user("rich").pk
    account(10**20, owner=rich)
    refuses(Invalid, "stream.too_long", owner=rich, payees={payee: 1}, deposit=3_155_760_001)
    opened(rich, (payee, 1), deposit=3_155_760_000)


@pytest.mark.slow
def test_an_owner_has_at_most_a_thousand_open_streams(owner, payee, committed_db):
    for _ in range(1000):
        opened(owner, (payee, 1), deposit=1)
    refuses(Conflict, "stream.too_many", owner=owner, payees={payee: 1})


# -- accrual -----------------------------------------------------------------------------------


def test_what_accrued_is_paid_with_the_fee_as_a_transfer_of_its_own(owner, payee, at):
    stream = opened(owner, (payee, 100), deposit=100_000)
    at(stream, 60)

    document = loads(streams.act("settle", user=payee, stream=stream))

    gross = row(stream).paid + row(stream).fees
    assert 6000 <= gross < 6100  # and the moment that the call took
    assert row(stream).fees == ceil(Fraction(gross * 250, 10_000)) == fees()
    assert of(payee, "available") == (gross - fees(), 0)
    assert Fraction(document["payees"][0]["accrued"]["amount"]) < Fraction(100, 10**18)
    assert row(stream).ends_at - row(stream).created_at == timedelta(seconds=1000)


def test_the_forecast_counts_what_has_accrued(owner, payee, at):
    stream = opened(owner, (payee, 100), deposit=100_000, warn_seconds=5)
    at(stream, 60)

    shown = loads(streams.document(user=payee, stream=stream))

    assert seconds(shown) == 1000
    left, owed = (round(Fraction(v["amount"]) * 10**18) for v in (shown["funds"], shown["payees"][0]["accrued"]))
    assert left + owed == 100_000
    assert 6000 <= owed < 6100
    assert shown["rate"] == {"amount": "0.0000000000000001", "asset": "AIT"}


def test_the_fee_is_that_of_the_opening(owner, payee, at):
    stream = opened(owner, (payee, 100))
    parameters.change(name="fee_bps", value=2000, by=None)
    at(stream, 60)
    assert run_streams() == {"ended": 1}
    assert (row(stream).paid, row(stream).fees) == (975, 25)


def test_fractions_are_carried(owner, at):
    """A third of a unit in a third of a second: nothing is paid for it, and nothing is forgotten."""
    slow = user("slow").pk
    stream = opened(owner, (slow, 1), deposit=1000)
    assert shares_at(stream, 0.999999) == [(slow, "0", "0", "999999")]
    assert shares_at(stream, 1) == [(slow, "1", "1", "0")]
    at(stream, 0.7)
    streams.act("settle", user=owner, stream=stream)
    at(stream, 0.7)
    streams.act("settle", user=owner, stream=stream)
    assert row(stream).paid + row(stream).fees == 1


# -- the end -----------------------------------------------------------------------------------


def test_the_timer_ends_a_stream_at_its_deadline_and_announces_it(owner, payee, at):
    stream = opened(owner, (payee, 100), deposit=6000, warn_seconds=0)
    assert run_streams() == {}
    at(stream, 75)  # late

    assert run_streams() == {"ended": 1}

    found = row(stream)
    assert (found.state, found.paid, found.fees, found.returned) == ("ended", 5850, 150, 0)
    assert found.closed_at - found.ends_at >= timedelta(seconds=15)
    assert of(payee, "available") == (5850, 0)
    assert of(owner, "escrow") == (0, 0)
    (event,) = OutboxEvent.objects.all()
    assert (event.event, event.aggregate) == ("trading.stream_ended", f"stream:{stream}")
    assert (event.payload["stream"], event.payload["funds"]) == (str(stream), "0")
    assert run_streams() == {}


def test_the_real_clock_ends_it_without_any_interaction(owner, payee, committed_db):
    stream = opened(owner, (payee, 1000), deposit=700, warn_seconds=0)
    sleep(0.75)
    assert run_streams() == {"ended": 1}
    assert row(stream).ends_at - row(stream).created_at == timedelta(milliseconds=700)


def test_the_last_units_go_pro_rata_and_exactly(owner, at):
    """1000 units at 3:2:2 a second: 428 4/7, 285 5/7, 285 5/7 -> the larger fractions get the units left."""
    people = sorted(user("p").pk for _ in range(3))
    stream = opened(owner, *zip(people, (3, 2, 2), strict=True), deposit=1000, warn_seconds=0)
    at(stream, 143)
    run_streams()
    paid = db.rows("SELECT paid + fee FROM trading_stream_payee ORDER BY payee_id")
    assert [int(value) for (value,) in paid] == [428, 286, 286]


def test_at_a_deadline_after_which_nothing_more_accrues(owner, payee, at):
    stream = opened(owner, (payee, 100), deposit=6000)
    assert shares_at(stream, 60) == shares_at(stream, 10**6) == [(payee, "6000", "150", "0")]


@pytest.mark.parametrize(
    "act",
    [
        lambda s, owner, payee: streams.deposit(user=owner, stream=s, amount=5),
        lambda s, owner, payee: streams.set_rate(user=owner, stream=s, payee=payee, rate=5),
        lambda s, owner, payee: streams.act("close", user=owner, stream=s),
    ],
)
@pytest.mark.parametrize("told", [False, True])
def test_after_its_deadline_nothing_is_done_to_a_stream(act, told, owner, payee, at):
    stream = opened(owner, (payee, 100))
    at(stream, 60)
    if told:
        run_streams()
    before = all_rows()
    with pytest.raises(Conflict, match=r"stream\.ended"):
        act(stream, owner, payee)
    assert all_rows() == before
    streams.act("settle", user=payee, stream=stream)  # leaves it to the timer
    assert all_rows() == before


def test_closing_pays_what_accrued_and_returns_the_rest(owner, payee, at):
    stream = opened(owner, (payee, 100), deposit=100_000)
    at(stream, 60)

    document = loads(streams.act("close", user=owner, stream=stream))

    found = row(stream)
    assert (found.state, document["state"]) == ("closed", "closed")
    assert 6000 <= found.paid + found.fees < 6100
    assert found.paid + found.fees + found.returned == 100_000
    assert of(owner, "available") == (10_000_000 - found.paid - found.fees, 0)
    assert of(owner, "escrow") == (0, 0)
    assert events() == ["trading.stream_closed"]
    with pytest.raises(Conflict, match=r"stream\.closed"):
        streams.act("close", user=owner, stream=stream)


# -- depositors --------------------------------------------------------------------------------


def test_the_last_deposit_returns_first(owner, payee, at):
    """Deposits of 1000, 500, 300, 200 of which some 1100 are spent: the first is, the second in part."""
    sponsors = [user("sponsor").pk for _ in range(3)]
    for sponsor in sponsors:
        account(1000, owner=sponsor)
    stream = opened(owner, (payee, 10), deposit=1000)
    for sponsor, amount in zip(sponsors, (500, 300, 200), strict=True):
        streams.deposit(user=sponsor, stream=stream, amount=amount)
    assert row(stream).ends_at - row(stream).created_at == timedelta(seconds=200)
    at(stream, 110)

    streams.act("close", user=None, stream=stream)

    spent = row(stream).paid + row(stream).fees
    assert 1100 <= spent < 1110
    returned = [int(v) for (v,) in db.rows("SELECT returned FROM trading_stream_deposit ORDER BY number")]
    assert returned == [0, 1500 - spent, 300, 200]
    assert [of(sponsor, "available")[0] for sponsor in sponsors] == [2000 - spent, 1000, 1000]


def test_one_who_deposits_several_times_gets_one_transfer_back(owner, payee):
    stream = opened(owner, (payee, 1), deposit=100)
    for _ in range(3):
        streams.deposit(user=owner, stream=stream, amount=100)
    streams.act("close", user=owner, stream=stream)
    found = db.value("SELECT count(*) FROM trading_transfer WHERE kind = 'stream.return'")
    assert found == 1
    assert of(owner, "available")[0] >= 10_000_000 - 1


def test_a_deposit_that_is_refused_changes_nothing(owner, payee):
    stream = opened(owner, (payee, 1))
    before = all_rows()
    for who, amount, kind, code in (
        (owner, 0, Invalid, "stream.deposit"),
        (owner, 10**9, Conflict, "payment.insufficient_funds"),
        (user("poor").pk, 1, Conflict, "payment.insufficient_funds"),
    ):
        with pytest.raises(kind) as caught:
            streams.deposit(user=who, stream=stream, amount=amount)
        assert caught.value.code == code
    with pytest.raises(NotFound, match=r"stream\.unknown"):
        streams.deposit(user=owner, stream=uuid7(), amount=1)
    assert all_rows() == before


# -- payees ------------------------------------------------------------------------------------


def test_payees_come_change_and_go_and_the_deadline_follows(owner, payee, at):
    other = user("other").pk
    stream = opened(owner, (payee, 100), deposit=100_000)
    at(stream, 100)
    streams.set_rate(user=owner, stream=stream, payee=other, rate=300)
    first = row(stream)
    left = 100_000 - first.paid - first.fees
    assert first.rate == 400
    remaining = db.value("SELECT extract(epoch FROM ends_at - settled_at) FROM trading_stream")
    assert abs(Fraction(remaining) - Fraction(left, 400)) < Fraction(1, 100)
    at(stream, 100)
    streams.set_rate(user=None, stream=stream, payee=payee, rate=0)
    streams.set_rate(user=None, stream=stream, payee=other, rate=0)
    assert (row(stream).rate, row(stream).ends_at) == (0, None)
    paid = dict(db.rows("SELECT payee_id, paid + fee FROM trading_stream_payee"))
    assert 20_000 <= paid[payee] < 20_100
    assert 30_000 <= paid[other] < 30_300
    assert run_streams() == {}
    streams.act("close", user=owner, stream=stream)
    assert row(stream).returned == 100_000 - sum(paid.values())


def test_only_its_owner_changes_a_stream_and_only_its_parties_see_it(owner, payee):
    stranger, sponsor = user("stranger").pk, user("sponsor").pk
    account(10, owner=sponsor)
    stream = opened(owner, (payee, 1))
    streams.deposit(user=sponsor, stream=stream, amount=1)
    before = all_rows()
    for who in (payee, sponsor):
        assert loads(streams.document(user=who, stream=stream))["owner"] == str(owner)
        with pytest.raises(Forbidden, match=r"stream\.owner_only"):
            streams.act("close", user=who, stream=stream)
        with pytest.raises(Forbidden, match=r"stream\.owner_only"):
            streams.set_rate(user=who, stream=stream, payee=payee, rate=10)
    for act in (
        lambda: streams.document(user=stranger, stream=stream),
        lambda: streams.act("close", user=stranger, stream=stream),
        lambda: streams.act("settle", user=stranger, stream=stream),
        lambda: streams.set_rate(user=stranger, stream=stream, payee=stranger, rate=10),
    ):
        with pytest.raises(NotFound, match=r"stream\.unknown"):
            act()
    for wrong, rate, code in ((owner, 1, "stream.payee"), (uuid7(), 1, "stream.payee"), (payee, -1, "stream.rate")):
        with pytest.raises(Invalid, match=code.replace(".", r"\.")):
            streams.set_rate(user=owner, stream=stream, payee=wrong, rate=rate)
    assert all_rows() == before


# -- forecast, alert, top-up ----------------------------------------------------------------------


def test_the_end_is_announced_once_so_long_before(owner, payee, at):
    stream = opened(owner, (payee, 10), deposit=1000, warn_seconds=30)
    at(stream, 69)
    assert run_streams() == {}
    at(stream, 2)
    assert run_streams() == {"low": 1}
    assert run_streams() == {}
    assert events() == ["trading.stream_low"]
    at(stream, 40)
    assert run_streams() == {"ended": 1}
    assert events() == ["trading.stream_low", "trading.stream_ended"]


def test_a_deposit_arms_the_alert_again(owner, payee, at):
    stream = opened(owner, (payee, 10), deposit=1000, warn_seconds=30)
    at(stream, 75)
    run_streams()
    streams.deposit(user=owner, stream=stream, amount=10)  # still within the alert
    assert run_streams() == {}
    streams.deposit(user=owner, stream=stream, amount=1000)
    assert run_streams() == {}
    at(stream, 100)
    assert run_streams() == {"low": 1}


def test_a_stream_tops_itself_up_until_its_cap(owner, payee, at):
    """90 s of funds at 10 a second, the alert 60 s before: whole top-ups of 250 reach a minute beyond it."""
    stream = opened(owner, (payee, 10), deposit=900, warn_seconds=60, topup=250, topup_cap=1600)
    at(stream, 35)

    assert run_streams() == {"topped_up": 1}

    assert row(stream).deposited == 900 + 750  # 55 s were left, and 120 are wanted
    assert of(owner, "available") == (10_000_000 - 1650, 0)
    assert run_streams() == {}
    at(stream, 70)
    assert run_streams() == {"topped_up": 1}
    assert row(stream).deposited == 1650 + 750
    at(stream, 80)
    assert run_streams() == {"topped_up": 1}
    assert row(stream).deposited == 2400 + 100  # the rest of the cap is less than one top-up
    at(stream, 10)
    assert run_streams() == {"low": 1}
    at(stream, 100)
    assert run_streams() == {"ended": 1}
    assert events() == [*["trading.stream_topped_up"] * 3, "trading.stream_low", "trading.stream_ended"]
    assert row(stream).paid + row(stream).fees == 2500


def test_a_late_timer_tops_up_what_was_agreed_before_it_ends_anything(owner, payee, at):
    stream = opened(owner, (payee, 10), deposit=100, warn_seconds=0, topup=50, topup_cap=10_000)
    at(stream, 200)
    assert run_streams() == {"topped_up": 1}
    assert row(stream).state == "open"
    assert row(stream).deposited == 100 + 2550  # 190 s behind and 60 s ahead: 51 top-ups


def test_a_top_up_takes_only_what_is_available(payee, at):
    owner = user("modest").pk
    account(1120, owner=owner)
    stream = opened(owner, (payee, 10), deposit=1000, warn_seconds=60, topup=50, topup_cap=10_000)
    at(stream, 45)
    assert run_streams() == {"topped_up": 1}
    assert of(owner, "available") == (20, 0)
    assert row(stream).deposited == 1100
    at(stream, 10)
    assert run_streams() == {"low": 1}


def test_a_broken_stream_waits_and_does_not_keep_the_others_from_ending(owner, payee, at):
    broken, sound = (opened(owner, (payee, 10), deposit=100, warn_seconds=0) for _ in range(2))
    at(broken, 30)
    at(sound, 20)
    with connections["owner"].cursor() as cursor:
        cursor.execute("UPDATE trading_stream SET deposited = 101 WHERE id = %s", [broken])

    assert run_streams() == {"stuck": 1, "ended": 1}

    assert (row(broken).state, row(sound).state) == ("open", "ended")
    assert events() == ["trading.stream_stuck", "trading.stream_ended"]
    assert run_streams() == {}
    with connections["owner"].cursor() as cursor:
        cursor.execute("UPDATE trading_stream SET deposited = 100 WHERE id = %s", [broken])
    at(broken, 60)
    assert run_streams() == {"ended": 1}


# -- path independence -----------------------------------------------------------------------------


class Clock:
    """The same stream as `stream_shares` sees it, settled at given moments: pure arithmetic in Python."""

    def __init__(self, rates, funds, bps):
        self.rates, self.funds, self.bps = rates, funds, bps

    def owed(self, micros):
        """Whole units of each payee after so many microseconds, however often it was settled before."""
        end = ceil(Fraction(self.funds * 1_000_000, sum(self.rates)))
        if micros < end:
            return [floor(Fraction(rate * micros, 1_000_000)) for rate in self.rates]
        exact = [Fraction(self.funds * rate, sum(self.rates)) for rate in self.rates]
        whole = [floor(share) for share in exact]
        order = sorted(range(len(exact)), key=lambda i: (-(exact[i] - whole[i]), i))
        for i in order[: self.funds - sum(whole)]:
            whole[i] += 1
        return whole


QUIET = settings(
    max_examples=40,
    deadline=None,
    database=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@given(
    rates=st.lists(st.one_of(st.integers(1, 9), st.integers(1, 10**15)), min_size=1, max_size=4),
    seconds=st.integers(1, 5000),
    dust=st.integers(0, 10**6),
    steps=st.lists(st.integers(0, 2_000_000_000), max_size=6),
    bps=st.sampled_from([0, 1, 250, 2000]),
)
@QUIET
def test_what_is_paid_does_not_depend_on_how_often_it_is_settled(rates, seconds, dust, steps, bps):
    """Each settlement at its moment, against the arithmetic that knows of none."""
    parameters.change(name="fee_bps", value=bps, by=None)
    funds = sum(rates) * seconds + dust
    owner, people = user("o").pk, sorted(user("p").pk for _ in rates)
    account(funds, owner=owner)
    stream = opened(owner, *zip(people, rates, strict=True), deposit=funds)
    oracle, kept = Clock(rates, funds, bps), fees()
    for moment in sorted(steps):
        _settle_at(stream, moment)
        expected = oracle.owed(moment)
        assert _gross(stream) == expected
        assert sum(expected) <= funds
        assert row(stream).fees == sum(ceil(Fraction(gross * bps, 10_000)) for gross in expected)
    _settle_at(stream, 6_000_000_000 * 10**6)
    assert _gross(stream) == oracle.owed(10**30)
    assert sum(_gross(stream)) == funds
    assert row(stream).state == "ended"
    assert sum(of(who, "available")[0] for who in people) + fees() - kept == funds


CHANGES = st.lists(
    st.tuples(
        st.integers(0, 400_000_000),
        st.one_of(
            st.tuples(st.just("rate"), st.integers(0, 2), st.sampled_from([0, 1, 3, 10, 997])),
            st.tuples(st.just("fill"), st.just(0), st.integers(1, 5000)),
        ),
    ),
    max_size=6,
)


@given(changes=CHANGES, settled=st.lists(st.integers(0, 500_000_000), max_size=8), funds=st.integers(1, 10_000))
@QUIET
def test_nor_do_deposits_and_rates_that_change_on_the_way(changes, settled, funds):
    """The same story twice, once with settlements in between: each payee, fee and deadline is the same."""
    owner, people = user("o").pk, sorted(user("p").pk for _ in range(3))
    account(100_000, owner=owner)
    plain, busy = (opened(owner, *((who, 7) for who in people), deposit=funds) for _ in range(2))
    told = [(moment, 0, change) for moment, change in changes]
    extra = [(moment, 1, ("settle", 0, 0)) for moment in settled]
    for stream, story in ((plain, sorted(told)), (busy, sorted(told + extra))):
        for moment, _, (what, index, value) in story:
            who = people[index] if what == "rate" else owner
            db.rows("SELECT test_stream_step(%s, %s, %s, %s, %s)", (stream, moment, what, who, value))
    assert _outcome(plain, 600_000_000) == _outcome(busy, 600_000_000)
    for stream in (plain, busy):
        db.rows("SELECT test_stream_step(%s, %s, 'settle', %s, 0)", (stream, 10**14, owner))
    assert _outcome(plain, 0) == _outcome(busy, 0)
    found = row(plain)
    assert found.state == "ended" or found.rate == 0
    assert found.paid + found.fees <= found.deposited


def _outcome(stream, micros):
    """(shares by then, those paid included, the end), as counted from the opening."""
    if micros:
        db.rows("SELECT test_stream_step(%s, %s, 'settle', NULL, 0)", (stream, micros))
    shares = db.rows(
        "SELECT payee_id, paid, fee, carry, rate FROM trading_stream_payee WHERE stream_id = %s ORDER BY 1", (stream,)
    )
    found = row(stream)
    return shares, found.state, found.ends_at and found.ends_at - found.created_at, found.deposited


def _settle_at(stream, micros):
    """As the database's clock would read so many microseconds after the opening."""
    db.rows("SELECT test_stream_step(%s, %s, 'settle', NULL, 0)", (stream, micros))


def _gross(stream):
    found = db.rows("SELECT paid + fee FROM trading_stream_payee WHERE stream_id = %s ORDER BY payee_id", (stream,))
    return [int(value) for (value,) in found]


@pytest.fixture(scope="module", autouse=True)
def _pay_at(django_db_setup, django_db_blocker):
    """A way to settle at a chosen moment, with the owner's rights: in tests alone."""
    with django_db_blocker.unblock():
        _as_owner(
            """CREATE FUNCTION test_stream_step(
                 p_stream uuid, p_micros numeric, p_what text, p_who uuid, p_value numeric
               ) RETURNS void LANGUAGE plpgsql SECURITY DEFINER AS $$
               DECLARE s trading_stream; at timestamptz;
               BEGIN
                 SELECT * INTO s FROM trading_stream WHERE id = p_stream FOR UPDATE;
                 at := s.created_at + p_micros::float8 * interval '1 microsecond';
                 IF s.state <> 'open' OR (p_what <> 'settle' AND s.ends_at <= at) THEN RETURN; END IF;
                 IF p_what = 'fill' THEN
                   PERFORM stream_fill(p_stream, p_who, p_value, false);
                 ELSE
                   PERFORM stream_pay(s, at, NULL);
                 END IF;
                 IF p_what = 'rate' THEN
                   UPDATE trading_stream_payee SET rate = p_value
                    WHERE stream_id = p_stream AND payee_id = p_who;
                   PERFORM stream_schedule(p_stream);
                 END IF;
               END $$;
               GRANT EXECUTE ON FUNCTION test_stream_step TO PUBLIC"""
        )
        yield
        _as_owner("DROP FUNCTION test_stream_step")


def _as_owner(sql):
    with connections["owner"].cursor() as cursor:
        cursor.execute(sql)
    connections.close_all()


# -- the database itself ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE trading_stream SET paid = deposited + 1",
        "UPDATE trading_stream SET state = 'ended', closed_at = now(), due_at = NULL",
        "UPDATE trading_stream SET state = 'gone'",
        "UPDATE trading_stream SET ends_at = NULL",
        "UPDATE trading_stream SET due_at = NULL",
        "UPDATE trading_stream SET account_id = (SELECT min(account_id) FROM trading_stream)",
        "UPDATE trading_stream_deposit SET returned = amount + 1",
        "UPDATE trading_stream_payee SET carry = 1000000",
        "DELETE FROM trading_stream",
        "DELETE FROM trading_stream_payee",
        "DELETE FROM trading_stream_deposit",
    ],
)
def test_no_state_is_left_by_raw_sql(change, committed_db):
    owner, payee = user("owner").pk, user("payee").pk
    account(100, owner=owner)
    for _ in range(2):
        opened(owner, (payee, 1), deposit=10)
    with pytest.raises(IntegrityError), transaction.atomic(using="owner"), connections["owner"].cursor() as cursor:
        cursor.execute(change)


def test_a_stream_that_is_over_never_changes(owner, payee, committed_db):
    streams.act("close", user=owner, stream=opened(owner, (payee, 1)))
    with (
        pytest.raises(IntegrityError, match="never changes"),
        transaction.atomic(using="owner"),
        connections["owner"].cursor() as cursor,
    ):
        cursor.execute("UPDATE trading_stream SET closed_at = now()")


# -- at once -----------------------------------------------------------------------------------------


def test_streams_that_share_payees_and_owners_end_at_once_without_deadlock(in_threads):
    people = [user("person").pk for _ in range(4)]
    wallets = {person: account(100_000, owner=person) for person in people}
    made = [
        opened(people[i % 4], *((p, 7) for p in people if p != people[i % 4]), deposit=1000, warn_seconds=0)
        for i in range(24)
    ]

    def work(index):
        done = Counter()
        for stream in made[index % 3 :: 3]:
            for act in (
                lambda s=stream: streams.act("settle", user=None, stream=s),
                lambda s=stream: streams.deposit(user=people[(index + 1) % 4], stream=s, amount=10),
                lambda s=stream: streams.set_rate(user=None, stream=s, payee=user(f"n{index}").pk, rate=3),
                lambda s=stream: streams.act("close", user=None, stream=s) if index % 2 else run_streams(),
            ):
                try:
                    act()
                    done["ok"] += 1
                except DomainError as error:
                    done[error.code] += 1
        return done

    total = sum(in_threads(work, 12), Counter())

    assert set(total) <= {"ok", "stream.closed", "stream.ended"}
    assert Stream.objects.filter(state="open").count() == 0
    everywhere = sum(Account.objects.exclude(kind="external").values_list("posted", flat=True))
    assert everywhere == 400_000
    assert all(balance(wallet)[0] >= 0 for wallet in wallets.values())


def test_due_streams_are_ended_by_one_of_sixteen_timers(in_threads):
    owner, payee = user("owner").pk, user("payee").pk
    account(10_000, owner=owner)
    for _ in range(20):
        opened(owner, (payee, 1000), deposit=10, warn_seconds=0)
    sleep(0.02)
    ended = in_threads(lambda _: run_streams().get("ended", 0), 16)
    assert sum(ended) + run_streams().get("ended", 0) == 20
    assert of(payee, "available") == (20 * 9, 0)


def test_a_balance_for_one_stream_opens_one_of_sixteen(in_threads):
    owner, payee = user("owner").pk, user("payee").pk
    account(10, owner=owner)

    def work(_):
        try:
            opened(owner, (payee, 1), deposit=10)
        except Conflict as error:
            return error.code
        return "ok"

    assert Counter(in_threads(work, 16)) == {"ok": 1, "payment.insufficient_funds": 15}


# -- the interface -----------------------------------------------------------------------------------


def test_streams_over_http(db):
    alice, mike, mallory = (cast.person(name) for name in ("alice", "mike", "mallory"))
    cast.fund(alice.id, AIT)
    body = {
        "payees": {str(mike.id): {"amount": "0.001"}},
        "deposit": {"amount": "0.5"},
        "warn_seconds": 60,
        "topup": {"amount": {"amount": "0.1"}, "cap": {"amount": "0.3"}},
    }

    first = alice.post("/v1/streams", body, idempotency_key="a")
    again = alice.post("/v1/streams", body, idempotency_key="a")

    assert (first.status_code, again.content) == (201, first.content)
    stream = read(first)
    assert stream["topup"] == {"amount": {"amount": "0.1", "asset": "AIT"}, "cap": {"amount": "0.3", "asset": "AIT"}}
    assert seconds(stream) == 500
    path = f"/v1/streams/{stream['id']}"
    assert read(mike.get(path))["id"] == stream["id"]
    refused(mallory.get(path), 404, "stream.unknown")
    longer = read(alice.post(f"{path}/deposits", {"amount": "0.25"}, idempotency_key="b"))
    assert seconds(longer) == 750
    assert [d["amount"] for d in longer["deposits"]] == ["0.5", "0.25"]
    refused(alice.post(f"{path}/deposits", {"amount": "9"}), 409, "payment.insufficient_funds")
    assert Fraction(read(mike.post(f"{path}/settle"))["payees"][0]["paid"]["amount"]) > 0
    refused(mike.post(f"{path}/close"), 403, "stream.owner_only")
    refused(alice.post(f"{path}/open"), 422, "request.invalid")
    closed = read(alice.post(f"{path}/close", idempotency_key="c"))
    assert closed["state"] == "closed"
    refused(alice.post(f"{path}/close"), 409, "stream.closed")


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"payees": {}}, "request.invalid"),
        ({"deposit": {"amount": "0"}}, "stream.deposit"),
        ({"deposit": {"amount": "-1"}}, "request.invalid"),
        ({"warn_seconds": -1}, "request.invalid"),
        ({"topup": {"amount": {"amount": "1"}, "cap": {"amount": "0"}}}, "stream.topup"),
        ({"more": 1}, "request.invalid"),
    ],
)
def test_bad_terms_over_http_are_named_and_change_nothing(change, code, db):
    alice, mike = cast.person("alice"), cast.person("mike")
    cast.fund(alice.id, AIT)
    body = {"payees": {str(mike.id): {"amount": "0.001"}}, "deposit": {"amount": "0.5"}}
    before = all_rows()
    refused(alice.post("/v1/streams", body | change), 422, code)
    assert all_rows() == before


def test_a_list_is_of_ones_own_and_paged(db):
    alice, mike, mallory = (cast.person(name) for name in ("alice", "mike", "mallory"))
    cast.fund(alice.id, AIT)
    ids = [str(opened(alice.id, (mike.id, 1), deposit=100 + i)) for i in range(3)]
    newest = ids[::-1]
    first = read(alice.get("/v1/streams?limit=2"))
    assert ([item["id"] for item in first["items"]], first["next"]) == (newest[:2], newest[1])
    rest = read(mike.get(f"/v1/streams?limit=2&cursor={first['next']}"))
    assert ([item["id"] for item in rest["items"]], rest["next"]) == (newest[2:], None)
    assert read(mallory.get("/v1/streams")) == {"items": [], "next": None}
    refused(alice.get("/v1/streams?cursor=x"), 422, "request.invalid")
