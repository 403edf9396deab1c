"""After a job: its client releases or disputes the payment, its provider gives back, an operator splits."""

from collections import Counter
from datetime import timedelta

import pytest
from django.db import IntegrityError, connections, transaction
from hypothesis import given
from hypothesis import strategies as st

from aitbc.accounts import parameters
from aitbc.core import clock, db
from aitbc.core.errors import Conflict, Forbidden, Invalid, NotFound
from aitbc.core.ids import uuid7
from aitbc.core.models import OutboxEvent
from aitbc.core.testing import cast
from apps.gpu.tests.steps import read, refused
from apps.trading.models import Payment, Transfer
from apps.trading.services import escrow
from apps.trading.services.audit import audit
from apps.trading.tasks import mature
from apps.trading.tests.books import books
from apps.trading.tests.test_payments import fees, of, opened, settle


@pytest.fixture(autouse=True)
def _sound_in_the_end(request):
    commits = {"in_threads", "committed_db"} & set(request.fixturenames)
    request.getfixturevalue("committed_db" if commits else "db")
    yield
    assert audit() == []


@pytest.fixture
def alice():
    alice = cast.person("alice")
    cast.fund(alice.id, 1000)
    return alice


@pytest.fixture
def mike():
    return cast.person("mike")


@pytest.fixture
def olga():
    return cast.person("olga", role="operator")


def paid(alice, mike, total=300, fee=8, *, held=300):
    """A payment of `total` that matures in ten minutes."""
    job = opened(alice.id, held)
    settle((job, mike.id, total, fee))
    return Payment.objects.get(job=job)


def post(who, payment, action, **body):
    key = {"idempotency_key": body.pop("key")} if "key" in body else {}
    return who.post(f"/v1/payments/{payment.pk}/{action}", {"job_id": payment.job} | body, **key)


def units(value):
    return {"amount": f"0.{value:018d}"}


def amounts(payment):
    payment.refresh_from_db()
    return (payment.state, payment.released, payment.fee, payment.refunded)


def events():
    return Counter(OutboxEvent.objects.values_list("event", flat=True))


def refusing(response, status, code, before):
    problem = refused(response, status, code)
    assert books() == before
    assert not OutboxEvent.objects.exists()
    return problem


# -- release -----------------------------------------------------------------------------------


def test_a_client_releases_an_earning_before_its_window_ends(alice, mike):
    payment = paid(alice, mike)

    document = read(post(alice, payment, "release", reason="good work"))

    assert document["state"] == "released"
    assert document["matured_at"] is not None
    assert (of(mike.id, "maturing"), of(mike.id, "available")) == ((0, 0), (292, 0))
    assert mature() == 0
    (event,) = OutboxEvent.objects.all()
    assert (event.event, event.aggregate) == ("trading.payment_released", f"payment:{payment.pk}")
    assert event.payload == {
        "payment": str(payment.pk),
        "job": str(payment.job),
        "client": str(alice.id),
        "provider": str(mike.id),
        "state": "released",
        "reason": "good work",
    }


def test_a_repeat_with_the_same_key_is_the_same_answer(alice, mike):
    payment = paid(alice, mike)
    first = post(alice, payment, "release", key="once")
    before = books()

    again = post(alice, payment, "release", key="once")

    assert (again.status_code, again.content) == (200, first.content)
    assert books() == before
    refused(post(alice, payment, "refund", key="once"), 422, "idempotency.mismatch")


def test_what_is_released_is_final(alice, mike):
    payment = paid(alice, mike)
    post(alice, payment, "release")
    refused(post(alice, payment, "release"), 409, "payment.final")
    refused(post(alice, payment, "refund"), 409, "payment.window_closed")
    refused(post(alice, payment, "dispute", reason="too late"), 409, "payment.window_closed")


# -- who may do what, and when ------------------------------------------------------------------


@pytest.mark.parametrize("action", ["release", "refund", "dispute"])
def test_a_running_jobs_payment_is_its_meters(action, alice, mike):
    payment = Payment.objects.get(job=opened(alice.id, 300))
    refusing(post(alice, payment, action, reason="r"), 409, "payment.not_final", books())


@pytest.mark.parametrize("action", ["release", "refund", "dispute"])
def test_a_strangers_payment_is_unknown(action, alice, mike):
    payment, mallory = paid(alice, mike), cast.person("mallory")
    before = books()
    refusing(post(mallory, payment, action, reason="r"), 404, "payment.unknown", before)
    refused(mallory.get(f"/v1/payments/{payment.pk}"), 404, "payment.unknown")
    refused(mallory.get(f"/v1/jobs/{payment.job}/payment"), 404, "payment.unknown")


@pytest.mark.parametrize("action", ["release", "refund", "dispute"])
def test_the_job_must_be_the_payments(action, alice, mike):
    payment = paid(alice, mike)
    response = post(alice, payment, action, job_id=uuid7(), reason="r")
    problem = refusing(response, 422, "payment.job_mismatch", books())
    assert problem["errors"][0]["loc"] == ["body", "job_id"]


@pytest.mark.parametrize("action", ["release", "dispute"])
def test_only_the_client_releases_and_disputes(action, alice, mike):
    payment = paid(alice, mike)
    refusing(post(mike, payment, action, reason="r"), 403, "payment.client_only", books())


@pytest.mark.parametrize("action", ["release", "refund", "dispute"])
@pytest.mark.parametrize("expired", [False, True])
def test_what_returned_whole_is_final(action, expired, alice, mike):
    job = opened(alice.id, 300)
    db.value("SELECT payments_settle(%s, %s, %s, %s, %s)", ([job], [None], [0], [0], [expired]))
    payment = Payment.objects.get(job=job)
    assert payment.state == ("expired" if expired else "refunded")
    refusing(post(alice, payment, action, reason="r"), 409, "payment.final", books())


@pytest.mark.parametrize("amount", [0, 301, 10**18])
@pytest.mark.parametrize("who", ["alice", "mike"])
def test_a_part_lies_within_what_the_job_cost(who, amount, alice, mike):
    payment = paid(alice, mike)
    body = {"amount": {"amount": "1"} if amount == 10**18 else units(amount)}
    response = post({"alice": alice, "mike": mike}[who], payment, "refund", **body)
    problem = refusing(response, 422, "payment.amount", books())
    assert problem["errors"][0]["loc"] == ["body", "amount"]


def test_a_release_is_whole_and_a_dispute_has_a_reason(alice, mike):
    payment = paid(alice, mike)
    refusing(post(alice, payment, "release", amount=units(1)), 422, "payment.amount", books())
    refusing(post(alice, payment, "dispute", reason=" "), 422, "payment.reason", books())
    refusing(post(alice, payment, "burn"), 422, "request.invalid", books())


def test_acting_needs_the_scope(alice, mike):
    payment = paid(alice, mike)
    reader = cast.person("reader", scopes=("money:read",))
    refusing(post(reader, payment, "release"), 403, "auth.scope", books())


# -- giving back -------------------------------------------------------------------------------


def test_a_provider_gives_a_maturing_earning_back(alice, mike):
    payment = paid(alice, mike)

    document = read(post(mike, payment, "refund", reason="my fault"))

    assert amounts(payment) == ("refunded", 0, 0, 300)
    assert (document["refunded"]["amount"], document["matures_at"]) == ("0.0000000000000003", None)
    assert of(alice.id, "available") == (1000, 0)
    assert (of(mike.id, "maturing"), fees()) == ((0, 0), 0)
    assert mature() == 0
    assert events() == {"trading.payment_returned": 1}
    refused(post(mike, payment, "refund"), 409, "payment.final")


def test_parts_go_back_one_after_another_as_transfers_of_their_own(alice, mike):
    payment = paid(alice, mike)
    for amount in (100, 100, 99):
        assert post(mike, payment, "refund", amount=units(amount)).status_code == 200
    assert amounts(payment) == ("partially_released", 0, 1, 299)
    assert Transfer.objects.filter(kind="job.returned", reference=payment.job).count() == 3
    assert of(alice.id, "available") == (999, 0)
    assert payment.matures_at is None


def test_a_matured_earning_is_given_back_out_of_the_available_balance(alice, mike):
    parameters.change(name="maturing_seconds", value=0, by=None)
    payment = paid(alice, mike)
    assert mature() == 1
    assert post(mike, payment, "refund", amount=units(150)).status_code == 200
    assert amounts(payment) == ("partially_released", 146, 4, 150)
    assert of(mike.id, "available") == (146, 0)

    with_holds = opened(mike.id, 146)
    refused(post(mike, payment, "refund"), 409, "payment.insufficient_funds")
    assert amounts(payment) == ("partially_released", 146, 4, 150)
    settle((with_holds, None, 0, 0))
    assert post(mike, payment, "refund").status_code == 200
    assert amounts(payment) == ("refunded", 0, 0, 300)


# -- disputes ----------------------------------------------------------------------------------


def test_a_dispute_blocks_maturing_until_it_is_resolved(alice, mike, olga):
    payment = paid(alice, mike)

    document = read(post(alice, payment, "dispute", reason="wrong output", amount=units(200)))

    assert (document["state"], document["matures_at"]) == ("disputed", None)
    dispute = document["dispute"]
    assert (dispute["reason"], dispute["refund"], dispute["note"]) == ("wrong output", None, None)
    assert dispute["claimed"] == {"amount": "0.0000000000000002", "asset": "AIT"}
    assert read(mike.get(f"/v1/payments/{payment.pk}"))["dispute"] == dispute
    assert mature() == 0

    escrow.resolve(operator=olga.id, payment=payment.pk, refund=100, note="half true")

    assert amounts(payment) == ("partially_released", 194, 6, 100)
    assert (of(alice.id, "available"), of(mike.id, "maturing"), fees()) == ((800, 0), (194, 0), 6)
    shown = [read(who.get(f"/v1/jobs/{payment.job}/payment"))["dispute"] for who in (alice, mike)]
    assert shown[0] == shown[1]
    assert (shown[0]["refund"]["amount"], shown[0]["note"]) == ("0.0000000000000001", "half true")
    assert mature() == 1
    assert of(mike.id, "available") == (194, 0)
    assert events() == {"trading.payment_disputed": 1, "trading.payment_resolved": 1}


def test_a_clients_refund_is_a_dispute_of_all(alice, mike):
    payment = paid(alice, mike)
    document = read(post(alice, payment, "refund"))
    assert (document["state"], document["dispute"]["claimed"]["amount"]) == ("disputed", "0.0000000000000003")


@pytest.mark.parametrize(
    ("refund", "state", "released", "fee"),
    [
        (0, "released", 292, 8),
        (1, "partially_released", 291, 8),  # floor(8 / 300) = 0 of the fee
        (37, "partially_released", 255, 8),  # floor(8 * 37 / 300) = 0
        (38, "partially_released", 255, 7),  # floor(8 * 38 / 300) = 1
        (299, "partially_released", 0, 1),
        (300, "refunded", 0, 0),
    ],
)
def test_the_split_is_exact_and_the_fee_is_rounded_up(refund, state, released, fee, alice, mike, olga):
    payment = paid(alice, mike)
    post(alice, payment, "refund")

    escrow.resolve(operator=olga.id, payment=payment.pk, refund=refund, note="n")

    assert amounts(payment) == (state, released, fee, refund)
    assert of(alice.id, "available") == (700 + refund, 0)
    assert (of(mike.id, "maturing"), fees()) == ((released, 0), fee)
    assert mature() == (1 if released else 0)
    assert of(mike.id, "available") == (released, 0)


@given(fee=st.integers(0, 10**30), more=st.integers(0, 10**30), back=st.fractions(0, 1))
def test_a_returned_share_of_the_fee_never_favours_its_payer(fee, more, back):
    """The rule itself: what the platform keeps is the fee of what remains, rounded up by less than a unit."""
    cost = fee + more
    amount = int(cost * back)
    kept = fee - (fee * amount // cost if cost else 0)
    assert 0 <= kept * cost - fee * (cost - amount) < max(cost, 1)
    assert kept <= cost - amount


def test_a_dispute_is_resolved_once_and_opened_once(alice, mike, olga):
    payment = paid(alice, mike)
    post(alice, payment, "refund")
    refused(post(alice, payment, "dispute", reason="again"), 409, "payment.disputed")
    refused(post(alice, payment, "release"), 409, "payment.disputed")
    refused(post(mike, payment, "refund"), 409, "payment.disputed")
    escrow.resolve(operator=olga.id, payment=payment.pk, refund=10, note="n")
    before = books()

    with pytest.raises(Conflict, match=r"payment\.not_disputed"):
        escrow.resolve(operator=olga.id, payment=payment.pk, refund=10, note="n")
    refused(post(alice, payment, "refund"), 409, "payment.dispute_resolved")
    assert books() == before


@pytest.mark.parametrize("refund", [-1, 301, "1.5", None, "NaN"])
def test_an_impossible_resolution_is_refused(refund, alice, mike, olga):
    payment = paid(alice, mike)
    post(alice, payment, "refund")
    before = books()
    with pytest.raises(Invalid, match=r"payment\.amount"):
        escrow.resolve(operator=olga.id, payment=payment.pk, refund=refund, note="n")
    assert books() == before


def test_nobody_resolves_his_own_or_an_unknown_one(alice, mike, olga):
    payment = paid(alice, mike)
    post(alice, payment, "refund")
    before = books()
    for who in (alice, mike):
        with pytest.raises(Forbidden, match=r"payment\.own_dispute"):
            escrow.resolve(operator=who.id, payment=payment.pk, refund=0, note="n")
    with pytest.raises(NotFound, match=r"payment\.unknown"):
        escrow.resolve(operator=olga.id, payment=uuid7(), refund=0, note="n")
    assert books() == before


def test_the_databases_clock_closes_the_window(alice, mike):
    parameters.change(name="maturing_seconds", value=0, by=None)
    payment = paid(alice, mike)
    refusing(post(alice, payment, "dispute", reason="late"), 409, "payment.window_closed", books())


def test_the_provider_may_still_give_more_back_after_a_resolution(alice, mike, olga):
    payment = paid(alice, mike)
    post(alice, payment, "refund")
    escrow.resolve(operator=olga.id, payment=payment.pk, refund=100, note="n")
    assert post(mike, payment, "refund").status_code == 200
    assert amounts(payment) == ("refunded", 0, 0, 300)
    assert of(alice.id, "available") == (1000, 0)


def test_who_buys_from_himself_acts_as_the_client(alice):
    payment = paid(alice, alice)
    assert read(post(alice, payment, "refund"))["state"] == "disputed"


# -- the database itself -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE trading_payment SET state = 'pending'",
        "UPDATE trading_payment SET state = 'expired'",
        "UPDATE trading_payment SET state = 'refunded'",
        "UPDATE trading_payment SET state = 'released', matures_at = now(), refunded = 1, released = 291",
        "UPDATE trading_payment SET matures_at = now()",
        "UPDATE trading_payment SET matured_at = now()",
        "UPDATE trading_payment SET state = 'partially_released'",
        "UPDATE trading_dispute SET refund = 301, note = '', resolved_at = now(), resolved_by_id = '{olga}'",
        "UPDATE trading_dispute SET refund = 1",
        "UPDATE trading_dispute SET claimed = 0",
        "DELETE FROM trading_dispute",
    ],
)
def test_no_state_is_left_by_raw_sql(change, committed_db):
    alice, mike, olga = (cast.person(name) for name in ("alice", "mike", "olga"))
    cast.fund(alice.id, 1000)
    payment = paid(alice, mike)
    post(alice, payment, "refund")
    with pytest.raises(IntegrityError), transaction.atomic(using="owner"), connections["owner"].cursor() as cursor:
        cursor.execute(change.format(olga=olga.id))


def test_a_resolved_dispute_never_changes(committed_db):
    alice, mike, olga = (cast.person(name) for name in ("alice", "mike", "olga"))
    cast.fund(alice.id, 1000)
    payment = paid(alice, mike)
    post(alice, payment, "refund")
    escrow.resolve(operator=olga.id, payment=payment.pk, refund=1, note="n")
    with (
        pytest.raises(IntegrityError, match="never changes"),
        transaction.atomic(using="owner"),
        connections["owner"].cursor() as cursor,
    ):
        cursor.execute("UPDATE trading_dispute SET note = 'another'")


# -- at once -------------------------------------------------------------------------------------


@pytest.mark.parametrize("round_", range(4))
def test_of_release_dispute_return_and_maturing_at_once_one_wins(round_, in_threads):
    """Every thread wants another end; whoever is first decides, the others are refused, no unit is lost."""
    alice, mike = cast.person("alice"), cast.person("mike")
    cast.fund(alice.id, 1000)
    parameters.change(name="maturing_seconds", value=1, by=None)
    payment = paid(alice, mike)
    # The window ends while they run.
    with connections["owner"].cursor() as cursor:
        moment = clock.database_now() + timedelta(milliseconds=20 * round_)
        cursor.execute("UPDATE trading_payment SET matures_at = %s", [moment])
    acts = [
        lambda: escrow.act("release", user=alice.id, payment=payment.pk, job=payment.job, reason=""),
        lambda: escrow.act("dispute", user=alice.id, payment=payment.pk, job=payment.job, reason="r"),
        lambda: escrow.act("refund", user=mike.id, payment=payment.pk, job=payment.job, reason=""),
        lambda: mature() or escrow.call("trading_refuse", 409, "nothing.due", "", ""),
    ]

    def work(index):
        try:
            acts[(index + round_) % 4]()
        except Conflict:
            return None
        return ("released", "disputed", "refunded", "matured")[(index + round_) % 4]

    won = Counter(who for who in in_threads(work, 16) if who)

    # The provider's gift is possible before and after maturing, but not twice; the rest excludes each other.
    state, *_ = amounts(payment)
    assert won.total() in (1, 2)
    assert all(count == 1 for count in won.values())
    if won.total() == 2:
        assert won["refunded"] == 1
        assert won["released"] + won["matured"] == 1
    assert (state == "disputed") == (won["disputed"] == 1)
    assert (state == "refunded") == (won["refunded"] == 1)
    accounts = [of(alice.id, "available")[0], of(mike.id, "available")[0], of(mike.id, "maturing")[0], fees()]
    assert sum(accounts) == 1000


def test_a_dispute_is_resolved_by_one_of_sixteen(in_threads):
    alice, mike, olga = (cast.person(name) for name in ("alice", "mike", "olga"))
    cast.fund(alice.id, 1000)
    payment = paid(alice, mike)
    escrow.act("dispute", user=alice.id, payment=payment.pk, job=payment.job, reason="r")

    def resolve(index):
        try:
            escrow.resolve(operator=olga.id, payment=payment.pk, refund=index, note="n")
        except Conflict as error:
            return error.code
        return index

    found = Counter(in_threads(resolve, 16))

    assert found.pop("payment.not_disputed") == 15
    (winner,) = found
    assert Payment.objects.get().refunded == winner
    assert of(alice.id, "available") == (700 + winner, 0)
