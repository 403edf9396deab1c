"""Idempotency-Key: one answer per key, caller and route; stored with the work or not at all."""

import threading
from datetime import timedelta
from types import SimpleNamespace

import orjson
import pytest
from django.db import connection, transaction
from django.test import RequestFactory
from django.utils import timezone

from aitbc.core import db
from aitbc.core.errors import Conflict, Invalid
from aitbc.core.idempotency import idempotent
from aitbc.core.ids import uuid7
from aitbc.core.models import IdempotencyKey, OutboxEvent
from aitbc.core.outbox import announce
from aitbc.core.tasks import forget_old_keys

ALICE, BOB = uuid7(), uuid7()


@pytest.fixture(autouse=True)
def _database(request):
    request.getfixturevalue("committed_db" if "in_threads" in request.fixturenames else "db")


def request(*, key="k1", body=b"{}", user=ALICE, path="/v1/things", method="POST"):
    headers = {} if key is None else {"HTTP_IDEMPOTENCY_KEY": key}
    made = RequestFactory().generic(method, path, body, content_type="application/json", **headers)
    made.auth = SimpleNamespace(user_id=user)
    return made


@idempotent("things.make")
def make(request, answer=None, status=201):
    """Work that leaves a row."""
    announce("thing.made", f"thing:{OutboxEvent.objects.count()}", {})
    return status, answer or {"number": OutboxEvent.objects.count()}


def works():
    return OutboxEvent.objects.count()


def test_the_same_request_is_answered_again_and_not_done_again():
    first, again = make(request()), make(request())
    assert (first.status_code, first.content) == (again.status_code, again.content) == (201, b'{"number":1}')
    assert "Idempotency-Replayed" not in first
    assert again["Idempotency-Replayed"] == "true"
    assert again["Content-Type"] == first["Content-Type"] == "application/json"
    assert works() == 1


def test_without_a_key_each_request_is_work():
    assert [make(request(key=None)).status_code for _ in range(2)] == [201, 201]
    assert (works(), IdempotencyKey.objects.count()) == (2, 0)


@pytest.mark.parametrize(
    "other",
    [{"body": b'{"a":1}'}, {"body": b"{} "}, {"path": "/v1/things?x=1"}, {"path": "/v1/other"}, {"method": "PUT"}],
)
def test_the_key_with_another_request_is_a_mismatch(other):
    make(request())
    with pytest.raises(Invalid) as caught:
        make(request(**other))
    assert caught.value.code == "idempotency.mismatch"
    assert works() == 1
    assert make(request())["Idempotency-Replayed"] == "true"


def test_a_key_belongs_to_its_caller_and_route():
    @idempotent("things.other")
    def other(request):
        return make.__wrapped__(request)

    make(request())
    make(request(user=BOB, body=b'{"b":1}'))
    other(request(body=b'{"c":1}'))
    assert works() == 3


@pytest.mark.parametrize("key", ["", "x" * 256, "tab\there", "ümlaut", "null\x00"])
def test_a_malformed_key_is_refused(key):
    with pytest.raises(Invalid) as caught:
        make(request(key=key))
    assert caught.value.code == "idempotency.key"
    assert works() == 0


@pytest.mark.parametrize("key", ["a", "x" * 255, "with space", "'; DROP TABLE core_idempotency; --", "{}/~"])
def test_any_printable_key_is_taken(key):
    make(request(key=key))
    assert make(request(key=key))["Idempotency-Replayed"] == "true"


def test_a_refusal_undoes_the_work_and_frees_the_key():
    @idempotent("things.make")
    def refuse(request):
        make.__wrapped__(request)
        raise Conflict("thing.no", "not now")

    with pytest.raises(Conflict):
        refuse(request())
    assert (works(), IdempotencyKey.objects.count()) == (0, 0)
    assert "Idempotency-Replayed" not in make(request())
    assert works() == 1


def test_text_is_stored_as_it_is():
    make(request(), answer='{"b":1, "a":2}', status=200)
    again = make(request())
    assert (again.status_code, again.content) == (200, b'{"b":1, "a":2}')


def test_of_sixteen_at_once_one_works_and_no_answer_differs(in_threads):
    def send(_):
        try:
            response = make(request())
        except Conflict as error:
            return error.code
        return response.content

    found = in_threads(send, 16)
    assert works() == 1
    assert set(found) <= {b'{"number":1}', "idempotency.in_flight"}
    assert b'{"number":1}' in found


def test_a_key_in_flight_is_a_conflict_until_its_transaction_ends(in_threads):
    begun, checked = threading.Event(), threading.Event()

    @idempotent("things.make")
    def slow(request):
        begun.set()
        assert checked.wait(10)
        return make.__wrapped__(request)

    def run(index):
        if index == 0:
            return slow(request()).content
        assert begun.wait(10)
        try:
            return [attempt(), attempt(key="k2"), attempt(user=BOB)]
        finally:
            checked.set()

    def attempt(**changes):
        try:
            return make(request(**changes)).status_code
        except Conflict as error:
            return error.code

    _, others = in_threads(run, 2)
    assert others == ["idempotency.in_flight", 201, 201]
    assert make(request())["Idempotency-Replayed"] == "true"


def test_a_dead_connection_frees_its_keys(in_threads):
    def begin(_):
        with transaction.atomic():
            state = db.value("SELECT state FROM core_idempotency_begin(%s, 'r', 'k', '\\x00')", (ALICE,))
            connection.connection.close()
            connection.needs_rollback = True
        return state

    assert in_threads(begin, 1) == ["new"]
    assert db.value("SELECT state FROM core_idempotency_begin(%s, 'r', 'k', '\\x00')", (ALICE,)) == "new"


def test_keys_are_forgotten_after_72_hours():
    for name in ("old", "young"):
        make(request(key=name))
    now = timezone.now()
    IdempotencyKey.objects.filter(key="old").update(created_at=now - timedelta(hours=72, seconds=1))
    IdempotencyKey.objects.filter(key="young").update(created_at=now - timedelta(hours=71, minutes=59))

    assert forget_old_keys() == 1

    assert [key for (key,) in db.rows("SELECT key FROM core_idempotency")] == ["young"]
    assert "Idempotency-Replayed" not in make(request(key="old"))
    assert orjson.loads(make(request(key="young")).content) == {"number": 2}


def test_forgetting_stops_at_its_limit():
    for i in range(5):
        make(request(key=f"k{i}"))
    IdempotencyKey.objects.update(created_at=timezone.now() - timedelta(days=4))
    assert [forget_old_keys(limit=2) for _ in range(4)] == [2, 2, 1, 0]
