"""Rule 14: an earning matures; until its dispute window has passed it cannot be spent."""

from datetime import timedelta
from time import sleep

from django.db import connections

from aitbc.accounts import parameters
from aitbc.core import clock, db
from aitbc.core.testing import cast
from aitbc.core.testing.cast import AIT, MATMUL_OUTPUT, job_body
from apps.gpu.tests.steps import lease_of, pass_time, refused, start
from apps.trading.models import Account, Payment
from apps.trading.services import escrow
from apps.trading.services.audit import audit


def balance(person, kind):
    account = Account.objects.filter(owner=person.id, kind=kind).first()
    return 0 if account is None else account.posted


def earn(client, miner):
    lease = lease_of(client, miner)
    start(miner, lease)
    pass_time(lease["id"], 4)
    assert miner.deliver(lease, MATMUL_OUTPUT, claimed_ms=4000).status_code == 200


def test_completion_pays_into_maturing_and_returns_the_rest_at_once(alice, mike):
    earn(alice, mike)

    payment = Payment.objects.get()
    assert (payment.released, payment.fee, payment.refunded) == (39 * 10**14, 10**14, 6 * 10**15)
    assert (balance(mike, "maturing"), balance(mike, "available")) == (39 * 10**14, 0)
    assert balance(alice, "available") == AIT - 4 * 10**15
    assert Account.objects.get(owner=alice.id, kind="available").held == 0
    assert audit() == []


def test_what_matures_cannot_be_spent_yet(alice, mike):
    earn(alice, mike)

    refused(mike.post("/v1/jobs", job_body(max_price={"amount": "0.001"})), 409, "payment.insufficient_funds")


def test_it_becomes_available_after_the_window_and_once(committed_db):
    alice, mike = cast.person("alice"), cast.seller("mike")
    cast.fund(alice.id, AIT)
    earn(alice, mike)
    assert db.value("SELECT payments_mature(100)") == 0
    window = timedelta(seconds=parameters.get("maturing_seconds"))
    assert abs(Payment.objects.get().matures_at - clock.database_now() - window) < timedelta(seconds=30)
    with connections["owner"].cursor() as cursor:
        cursor.execute("UPDATE trading_payment SET matures_at = matures_at - interval '601 seconds'")

    assert db.value("SELECT payments_mature(100)") == 1
    assert db.value("SELECT payments_mature(100)") == 0

    assert (balance(mike, "maturing"), balance(mike, "available")) == (0, 39 * 10**14)
    assert audit() == []


def test_a_dispute_stops_maturing_until_it_is_decided(alice, mike):
    parameters.change(name="maturing_seconds", value=1, by=None)
    earn(alice, mike)
    payment = Payment.objects.get()
    body = {"job_id": payment.job, "reason": "wrong product"}
    assert alice.post(f"/v1/payments/{payment.pk}/dispute", body).status_code == 200
    sleep(1.05)
    assert db.value("SELECT payments_mature(100)") == 0
    assert (balance(mike, "maturing"), balance(mike, "available")) == (39 * 10**14, 0)

    operator = cast.person("olga", "operator").id
    escrow.resolve(operator=operator, payment=payment.pk, refund=10**15, note="a quarter was wrong")

    assert db.value("SELECT payments_mature(100)") == 1
    assert balance(mike, "available") == 3 * 10**15 - 75 * 10**12
    assert balance(alice, "available") == AIT - 3 * 10**15
    assert audit() == []


def test_a_window_of_zero_is_allowed(alice, mike):
    parameters.change(name="maturing_seconds", value=0, by=None)
    earn(alice, mike)

    assert db.value("SELECT payments_mature(100)") == 1
    assert balance(mike, "available") == 39 * 10**14
