"""Delivery: what arrives, when it is tried again, and what stops it (bars R2 and R4)."""

import time
from datetime import timedelta
from email.utils import format_datetime

import orjson
import pytest
from django.utils import timezone

from aitbc.core import clock
from aitbc.webhooks.models import Delivery, Endpoint
from aitbc.webhooks.tests.conftest import due, only, pass_time, register, send, tell
from aitbc.webhooks.tests.sink import sink

SCHEDULE = [5, 300, 1800, 7200, 18_000, 36_000, 50_400, 72_000, 86_400]


def answers(status, **headers):
    return lambda request: (status, {name.replace("_", "-"): value for name, value in headers.items()})


def test_an_event_arrives_once_with_its_id(alice, hook, receiver, sender):
    tell(alice, "job.completed")
    delivery = only(hook)

    send(sender)

    (request,) = receiver.requests
    assert request.path == "/hook"
    assert request.headers["webhook-id"] == str(delivery.event_id)
    assert request.headers["content-type"] == "application/json"
    body = orjson.loads(request.body)
    assert set(body) == {"type", "timestamp", "sequence", "data"}
    assert (body["type"], body["data"]) == ("job.completed", {"n": 0})
    delivery.refresh_from_db()
    assert (delivery.state, delivery.attempts, delivery.status, delivery.error) == ("delivered", 1, 204, "")
    send(sender)
    assert len(receiver.requests) == 1


def test_events_reach_those_who_listen_for_them(alice, hook, receiver, sender):
    with sink() as jobs, sink() as off:
        register(alice, jobs.url, events=["job.failed"])
        register(alice, off.url)
        Endpoint.objects.filter(url=off.url).update(enabled=False)
        for event in ("job.failed", "payment.released"):
            tell(alice, event)
        send(sender)

        assert len(receiver.requests) == 2
        assert [orjson.loads(r.body)["type"] for r in jobs.requests] == ["job.failed"]
        assert off.requests == []


def test_a_receiver_that_is_down_gets_everything_in_the_end(alice, receiver, hook, sender):
    """R2: an hour down, then up: none lost, each under the id that it had from the start."""
    tell(alice, n=60)
    ids = {str(pk) for pk in Delivery.objects.values_list("event_id", flat=True)}
    port, url = receiver.port, receiver.url
    with sink() as elsewhere:  # a port that nobody listens on
        gone = elsewhere.url
    Endpoint.objects.update(url=gone)
    for wait in (0, 6, 360, 2160):
        pass_time(seconds=wait)
        send(sender)
    assert set(Delivery.objects.values_list("state", "attempts")) == {("pending", 4)}
    assert all("Connect" in error for error in Delivery.objects.values_list("error", flat=True))
    assert Endpoint.objects.get().failing_since < clock.database_now() - timedelta(seconds=2160)

    Endpoint.objects.update(url=url)
    pass_time(hours=3)
    send(sender)

    assert port == receiver.port
    assert sorted(receiver.ids) == sorted(ids)
    assert set(Delivery.objects.values_list("state", "attempts")) == {("delivered", 5)}
    assert Endpoint.objects.get().failing_since is None


def test_attempts_follow_the_schedule_and_end(alice, hook, receiver, sender):
    receiver.answer = answers(500)
    tell(alice)
    for attempt, wait in enumerate(SCHEDULE, 1):
        send(sender)
        found = only(hook)
        left = (found.due_at - found.attempted_at).total_seconds()
        assert (found.state, found.attempts) == ("pending", attempt)
        assert wait <= left < wait * 1.2 + 1
        pass_time(seconds=wait - 0.5)
        send(sender)
        assert only(hook).attempts == attempt  # not before its time
        pass_time(seconds=wait * 0.2 + 1)
    send(sender)

    found = only(hook)
    assert (found.state, found.attempts, found.status) == ("dead", 10, 500)
    assert len(set(receiver.ids)) == 1
    assert len(receiver.requests) == 10
    pass_time(days=3)
    send(sender)
    assert len(receiver.requests) == 10


def test_what_failed_together_does_not_come_back_together(alice, hook, receiver, sender):
    receiver.answer = answers(500)
    tell(alice, n=30)
    send(sender)
    pass_time(seconds=10)
    send(sender)
    waits = {round((d.due_at - d.attempted_at).total_seconds(), 3) for d in Delivery.objects.all()}
    assert len(waits) > 25
    assert all(300 <= wait < 361 for wait in waits)


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_redirect_is_a_failure_and_not_followed(alice, hook, receiver, sender, status):
    with sink() as private:
        receiver.answer = answers(status, location=private.url)
        tell(alice)
        send(sender)

        assert private.requests == []
    assert (only(hook).state, only(hook).status, only(hook).attempts) == ("pending", status, 1)


def test_gone_disables_the_endpoint_and_keeps_what_waits(alice, hook, receiver, sender):
    receiver.answer = answers(410)
    tell(alice)
    send(sender)
    found = Endpoint.objects.get()
    assert (found.enabled, found.disabled_reason) == (False, "The receiver answered 410 Gone.")
    tell(alice)  # nobody listens
    pass_time(hours=1)
    send(sender)
    assert (len(receiver.requests), Delivery.objects.count()) == (1, 1)

    receiver.answer = answers(200)
    assert alice.patch(f"/v1/webhooks/{hook['id']}", {"enabled": True}).status_code == 200
    send(sender)
    assert only(hook).state == "delivered"


@pytest.mark.parametrize(
    ("status", "header", "pause"),
    [
        (429, "90", 90),
        (503, "40", 40),
        (502, None, 30),
        (504, "junk", 30),
        (429, "date", 120),
        (429, "99999999999999999999", 86_400),
        (429, "Mon, 99 Foo 2026 00:00:00 GMT", 30),
        (429, "Mon, 23 Nov 2020 00:00:00 GMT", 30),
    ],
)
def test_a_receiver_may_ask_for_fewer_requests(alice, hook, receiver, sender, status, header, pause):
    if header == "date":
        header = format_datetime(timezone.now() + timedelta(seconds=120), usegmt=True)
    receiver.answer = answers(status, **({"retry_after": header} if header else {}))
    tell(alice)
    send(sender)

    found = only(hook)
    paused = (Endpoint.objects.get().paused_until - found.attempted_at).total_seconds()
    assert pause - 2 <= paused <= pause + 1
    if pause > 30:  # the receiver's own word, and longer than the schedule's
        assert pause - 2 <= (found.due_at - found.attempted_at).total_seconds() <= pause + 1
    receiver.answer = answers(200)
    tell(alice)
    send(sender)
    assert len(receiver.requests) == 1  # a new event waits too
    pass_time(seconds=pause + 5)
    send(sender)
    assert len(receiver.requests) == 3


def test_a_success_with_retry_after_pauses_nothing(alice, hook, receiver, sender):
    receiver.answer = answers(200, retry_after="90")
    tell(alice)
    send(sender)
    assert Endpoint.objects.get().paused_until is None


def test_a_slow_receiver_holds_up_nobody_else(alice, receiver, sender, monkeypatch):
    monkeypatch.setattr("aitbc.webhooks.sender.AT_ONE", 4)
    with sink(answer=lambda request: time.sleep(3) or (200, {})) as slow:
        register(alice, slow.url, events=["job.failed"])
        register(alice, receiver.url, events=["job.completed"])
        tell(alice, "job.failed", n=50)
        tell(alice, "job.completed", n=100)
        begun = time.monotonic()
        while len(receiver.requests) < 100:
            sender.round()
            assert time.monotonic() - begun < 2.5
        assert len(slow.requests) <= 4


def test_an_endpoint_that_fails_is_tried_one_at_a_time(alice, hook, receiver, sender):
    Endpoint.objects.update(failing_since=timezone.now())
    under_way = []
    receiver.answer = lambda request: under_way.append(len(sender.tasks)) or (500, {})
    tell(alice, n=5)
    send(sender)
    assert under_way == [1] * 5


def test_no_answer_within_the_time_is_a_failure(alice, hook, receiver, people, monkeypatch):
    from aitbc.webhooks.sender import Sender

    monkeypatch.setattr("aitbc.webhooks.sender.TIMEOUT", 0.3)
    sender = Sender()
    receiver.answer = lambda request: time.sleep(1) or (200, {})
    tell(alice)
    send(sender)
    sender.close()
    assert (only(hook).state, only(hook).status, only(hook).error) == ("pending", None, "TimeoutError")


def test_a_large_answer_is_not_read_to_its_end(alice, hook, receiver, sender):
    receiver.answer = answers(200, content_length="10000000000")
    tell(alice)
    begun = time.monotonic()
    send(sender)
    assert time.monotonic() - begun < 5
    assert only(hook).state == "delivered"


def test_what_a_dead_sender_held_is_due_again_after_a_minute(alice, hook, receiver, sender):
    from aitbc.core import db

    tell(alice)
    assert len(db.rows("SELECT * FROM webhooks_claim(10, 10, '{}', '{}')")) == 1
    assert (due(), only(hook).attempts) == (0, 0)
    assert db.rows("SELECT * FROM webhooks_claim(10, 10, '{}', '{}')") == []
    pass_time(seconds=61)
    send(sender)
    assert (len(receiver.requests), only(hook).state) == (1, "delivered")


def test_a_late_report_does_not_undo_a_later_one(alice, hook, people):
    from aitbc.core import db

    tell(alice)
    report = "SELECT webhooks_report(%s::bigint[], %s::int[], %s::int[], %s::text[], %s::text[])"
    pk = only(hook).pk
    db.rows(report, ([pk], [0], [500], [""], [""]))
    db.rows(report, ([pk], [0], [500], [""], [""]))
    assert only(hook).attempts == 1
    db.rows(report, ([pk], [1], [200], [""], [""]))
    db.rows(report, ([pk], [1], [500], [""], [""]))
    assert (only(hook).state, only(hook).attempts) == ("delivered", 2)


def test_two_senders_never_hold_the_same_delivery(alice, hook, people, in_threads):
    from aitbc.core import db

    tell(alice, n=200)
    claimed = in_threads(lambda _: [r[0] for r in db.rows("SELECT * FROM webhooks_claim(100, 100, '{}', '{}')")], 6)
    everything = [pk for part in claimed for pk in part]
    assert len(everything) == len(set(everything)) >= 100


def test_time_is_the_databases(alice, hook, receiver, sender, monkeypatch):
    """R4: a sender whose clock is ten minutes off sends neither early nor late, and signs the true time."""
    receiver.answer = answers(500)
    tell(alice)
    send(sender)
    real = time.time()
    for offset in (-600, 600):
        monkeypatch.setattr(time, "time", lambda o=offset: real + o)
        send(sender)
    assert len(receiver.requests) == 1
    monkeypatch.undo()
    stamp = int(receiver.requests[0].headers["webhook-timestamp"])
    assert abs(clock.database_now().timestamp() - stamp) < 30


def test_a_lost_database_loses_no_outcome(alice, hook, receiver, sender):
    from django.db import Error, connections

    from aitbc.core import db

    tell(alice)
    sender.round()
    while not sender.outcomes:
        sender.loop.run_until_complete(__import__("asyncio").sleep(0.01))
    backend = sender.database.submit(lambda: db.value("SELECT pg_backend_pid()")).result()
    with connections["owner"].cursor() as owner:
        owner.execute("SELECT pg_terminate_backend(%s, 5000)", [backend])
    with pytest.raises(Error):
        sender.round()
    assert len(sender.outcomes) == 1

    send(sender)
    assert (only(hook).state, len(receiver.requests)) == ("delivered", 1)


def test_deliveries_are_kept_for_thirty_days(alice, hook, receiver, sender):
    """The endpoint's next ones take the old ones away."""
    tell(alice, n=3)
    send(sender)
    pass_time(days=29)
    tell(alice)
    send(sender)
    assert Delivery.objects.count() == 4
    pass_time(days=2)
    tell(alice, n=2)
    send(sender)
    assert Delivery.objects.count() == 3


@pytest.mark.parametrize(
    "raw",
    [
        b"HTTP/1.1 503 \xff\xfe\r\nretry-after: \xff\xfe\x80\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nretry-after: " + b"9" * 5000 + b"\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/1.1 999999 \x00\r\n\r\n",
        b"\x00\xff garbage",
        b"",
        b"HTTP/1.1 200 OK\r\nset-cookie: \xff\r\ncontent-encoding: gzip\r\ncontent-length: 4\r\n\r\njunk",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: -5\r\n\r\n",
        b"HTTP/1.1 700 Odd\r\ncontent-length: 0\r\n\r\n",
    ],
)
def test_whatever_a_receiver_answers_fails_its_own_delivery_at_most(alice, receiver, sender, raw):
    import socket
    import threading

    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer():
            connection, _ = server.accept()
            with connection:
                connection.recv(65_536)
                connection.sendall(raw)

        threading.Thread(target=answer, daemon=True).start()
        odd = register(alice, f"http://127.0.0.1:{server.getsockname()[1]}/")
        register(alice, receiver.url)
        tell(alice)
        send(sender)

    found = only(odd)
    assert found.attempts == 1
    assert found.state == ("delivered" if found.status == 200 else "pending")
    assert found.status or found.error
    assert len(receiver.requests) == 1
    assert sender.busy == {} or set(sender.busy.values()) == {0}


def test_a_webhook_may_be_removed_while_senders_report(alice, hook, receiver, people, in_threads):
    """Nobody ends in a deadlock: locks are taken in one order."""
    from aitbc.core import db

    others = [register(alice, receiver.url) for _ in range(3)]
    tell(alice, n=150)
    report = "SELECT webhooks_report(%s::bigint[], %s::int[], %s::int[], %s::text[], %s::text[])"

    def work(index):
        if index < len(others):
            return alice.delete(f"/v1/webhooks/{others[index]['id']}").status_code
        for _ in range(6):
            ids = [pk for (pk,) in db.rows("SELECT id FROM webhooks_claim(50, 50, '{}', '{}')")]
            ids = ids[::-1] if index % 2 else ids
            n = len(ids)
            db.rows(report, (ids, [0] * n, [500] * n, [""] * n, [""] * n))
        return 200

    assert in_threads(work, 9) == [200] * 9
    assert Endpoint.objects.count() == 1
    assert set(Delivery.objects.values_list("endpoint_id", flat=True)) == {Endpoint.objects.get().pk}
