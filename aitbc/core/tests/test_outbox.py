"""The outbox: in order per aggregate, effects once, one bad event holds up nobody else."""

import threading
from datetime import timedelta

import pytest
from django.db import OperationalError, connection, connections, transaction
from django.utils import timezone

from aitbc.core import clock, db, deadletters, outbox, ports
from aitbc.core.errors import Conflict, NotFound
from aitbc.core.events import Event, receiver
from aitbc.core.ids import uuid7
from aitbc.core.models import OutboxEvent, PlatformTick
from aitbc.core.outbox import announce, relay_once


@pytest.fixture(autouse=True)
def _database(request):
    request.getfixturevalue("committed_db" if "in_threads" in request.fixturenames else "db")


@pytest.fixture
def heard(monkeypatch):
    """What the receivers of `test.happened` were given, in order; one may be told to fail."""
    monkeypatch.setattr(ports, "_subscribers", ports._subscribers.copy())
    log = Heard()
    receiver("test.happened")(log.receive)
    return log


class Heard(list):
    failing = None

    def receive(self, event: Event):
        if self.failing and (error := self.failing(event)):
            raise error
        self.append((event.aggregate, event.payload.get("n")))


def happen(aggregate="a", n=0):
    with transaction.atomic():
        announce("test.happened", aggregate, {"n": n})


def waiting():
    return [(record.aggregate, record.payload["n"]) for record in OutboxEvent.objects.order_by("id")]


def attempt_now():
    """A round of the relay after every wait is over."""
    OutboxEvent.objects.update(next_attempt_at=timezone.now() - timedelta(seconds=1))
    return relay_once()


# -- announcing --------------------------------------------------------------------------------


def test_an_event_is_announced_inside_a_transaction_only(in_threads):
    with pytest.raises(transaction.TransactionManagementError):
        announce("test.happened", "a", {})
    assert not OutboxEvent.objects.exists()


def test_an_event_of_what_did_not_happen_is_not_told(heard):
    with transaction.atomic():
        announce("test.happened", "a", {"n": 1})
        transaction.set_rollback(True)
    assert (relay_once(), heard) == (0, [])


def test_an_event_arrives_whole_and_its_row_goes(monkeypatch):
    monkeypatch.setattr(ports, "_subscribers", ports._subscribers.copy())
    events = []
    receiver("test.happened")(events.append)
    with transaction.atomic():
        announce("test.happened", "job:1", {"n": 1, "deep": [{"x": "ü"}]})
    record = OutboxEvent.objects.get()

    assert relay_once() == 1

    assert events == [Event(record.event_id, "test.happened", "job:1", record.pk, {"n": 1, "deep": [{"x": "ü"}]})]
    assert not OutboxEvent.objects.exists()
    assert relay_once() == 0


def test_an_event_without_receivers_is_done_with():
    with transaction.atomic():
        announce("nobody.listens", "a", {})
    assert relay_once() == 1
    assert not OutboxEvent.objects.exists()


def test_all_receivers_hear_it_and_one_registered_twice_hears_it_once(heard):
    receiver("test.happened")(heard.receive)
    receiver("test.happened")(second := Heard().receive)
    happen(n=7)
    relay_once()
    assert heard == [("a", 7)]
    assert second.__self__ == [("a", 7)]


def test_versions_grow_with_each_event_of_an_aggregate(monkeypatch):
    monkeypatch.setattr(ports, "_subscribers", ports._subscribers.copy())
    versions = []
    receiver("test.happened")(lambda event: versions.append(event.version))
    for n in range(5):
        happen(n=n)
    relay_once()
    assert versions == sorted(set(versions))
    assert len(versions) == 5


# -- order and failures ------------------------------------------------------------------------


def test_the_events_of_an_aggregate_come_in_order(heard):
    for n in range(20):
        happen("a" if n % 2 else "b", n)
    assert relay_once() == 20
    assert [n for aggregate, n in heard if aggregate == "a"] == list(range(1, 20, 2))
    assert [n for aggregate, n in heard if aggregate == "b"] == list(range(0, 20, 2))


def test_order_holds_over_the_limit_of_a_round(heard):
    for n in range(7):
        happen("a", n)
    assert [relay_once(limit=3) for _ in range(4)] == [3, 3, 1, 0]
    assert [n for _, n in heard] == list(range(7))


def test_a_failed_event_holds_up_its_own_aggregate_only(heard):
    same = [name for name in (f"x{i}" for i in range(2000)) if _partition(name) == _partition("a")][:2]
    heard.failing = lambda event: ValueError("no") if event.payload["n"] == 2 else None
    for n, aggregate in enumerate(["a", same[0], "a", "a", same[0], "b", "a"]):
        happen(aggregate, n)

    assert relay_once() == 4

    assert sorted(heard) == sorted([("a", 0), (same[0], 1), (same[0], 4), ("b", 5)])
    assert waiting() == [("a", 2), ("a", 3), ("a", 6)]
    assert relay_once() == 0


def _partition(aggregate):
    return db.value("SELECT hashtextextended(%s::text, 0) & 63", (aggregate,))


def test_a_later_attempt_succeeds_and_the_rest_follows(heard):
    heard.failing = lambda event: ValueError("no") if event.payload["n"] == 1 else None
    for n in range(3):
        happen(n=n)
    relay_once()
    heard.failing = None
    assert relay_once() == 0  # it is not due yet, and nothing passes it
    assert attempt_now() == 2
    assert [n for _, n in heard] == [0, 1, 2]


@pytest.mark.parametrize(
    "error",
    [
        ValueError("v"),
        RuntimeError("r"),
        ZeroDivisionError("z"),
        OSError("o"),
        AssertionError("a"),
        Conflict("c.c", "m"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_whatever_a_receiver_raises_is_kept_with_its_event(heard, error):
    heard.failing = lambda event: error if event.aggregate == "a" else None
    happen("a", 1)
    happen("b", 2)
    assert relay_once() == 1
    record = OutboxEvent.objects.get()
    assert (record.attempts, record.dead, record.last_error) == (1, False, repr(error))
    assert heard == [("b", 2)]


def test_attempts_wait_twice_as_long_each_time_until_the_event_is_dead(heard):
    heard.failing = lambda event: ValueError("no")
    happen()
    for wait in (2, 4, 8, 16, 32, 64, 128, 256):
        before = clock.database_now()
        attempt_now()
        record = OutboxEvent.objects.get()
        assert before <= record.next_attempt_at - timedelta(seconds=wait) <= clock.database_now()
    assert (record.dead, record.attempts) == (True, outbox.MAX_ATTEMPTS)
    assert attempt_now() == 0
    assert OutboxEvent.objects.get().attempts == outbox.MAX_ATTEMPTS


def test_a_dead_event_halts_its_aggregate_until_it_is_revived(heard):
    heard.failing = lambda event: ValueError("no") if event.payload["n"] == 0 else None
    happen("a", 0)
    OutboxEvent.objects.update(attempts=outbox.MAX_ATTEMPTS - 1)
    happen("a", 1)
    happen("b", 2)
    assert relay_once() == 1
    assert attempt_now() == 0
    assert heard == [("b", 2)]
    dead = OutboxEvent.objects.get(dead=True)

    heard.failing = None
    revived = deadletters.revive(event=dead.pk)

    assert (revived.dead, revived.attempts) == (False, 0)
    assert relay_once() == 2
    assert heard == [("b", 2), ("a", 0), ("a", 1)]


def test_only_a_dead_event_can_be_revived():
    happen()
    with pytest.raises(Conflict):
        deadletters.revive(event=OutboxEvent.objects.get().pk)
    with pytest.raises(NotFound):
        deadletters.revive(event=10**9)


# -- effects once ------------------------------------------------------------------------------


def note(name):
    now = timezone.now()
    PlatformTick.objects.create(process=name, at=now, resumed_at=now)


def noted():
    return sorted(PlatformTick.objects.values_list("process", flat=True))


def test_a_failed_receiver_takes_the_effects_of_the_others_back(heard):
    receiver("test.happened")(lambda event: note("effect"))
    receiver("test.happened")(lambda event: 1 / 0)
    happen()
    relay_once()
    assert (noted(), len(heard)) == ([], 1)
    assert len(waiting()) == 1


def test_two_relays_at_once_deliver_each_event_once_and_in_order(in_threads, heard):
    """An effect that came twice would break the unique name it writes."""
    receiver("test.happened")(lambda event: note(f"{event.aggregate}:{event.payload['n']:03}"))
    for n in range(120):
        happen(f"agg{n % 10}", n)

    delivered = in_threads(lambda _: sum(relay_once(limit=5) for _ in range(30)), 8)

    while relay_once():
        pass
    assert sum(delivered) <= 120
    assert noted() == sorted(f"agg{n % 10}:{n:03}" for n in range(120))
    for aggregate in range(10):
        order = [n for name, n in heard if name == f"agg{aggregate}"]
        assert order == sorted(order)
    assert not OutboxEvent.objects.exists()


def test_a_partition_in_work_is_left_to_its_relay(in_threads, heard):
    inside, done = threading.Event(), threading.Event()

    def slow(event):
        inside.set()
        assert done.wait(10)

    receiver("test.happened")(slow)
    happen()

    def run(index):
        if index == 0:
            return relay_once()
        assert inside.wait(10)
        try:
            return relay_once()
        finally:
            done.set()

    assert in_threads(run, 2) == [1, 0]
    assert len(heard) == 1


def test_a_relay_killed_half_way_leaves_the_event_for_the_next(in_threads, heard):
    """Its server process dies after the effect was written: both go together."""

    def die(event):
        note("effect")
        with connections["owner"].cursor() as cursor:
            cursor.execute("SELECT pg_terminate_backend(%s, 5000)", (db.value("SELECT pg_backend_pid()"),))

    receivers = ports._subscribers
    receiver("test.happened")(die)
    happen(n=3)

    def run(_):
        with pytest.raises(OperationalError):
            relay_once()
        connection.close()
        return True

    assert in_threads(run, 1) == [True]
    assert (noted(), waiting()) == ([], [("a", 3)])
    receivers["event:test.happened"].remove(die)
    assert relay_once() == 1
    assert heard == [("a", 3), ("a", 3)]  # heard twice, as promised: at least once; written once


def test_an_event_has_an_id_of_its_own():
    for n in range(3):
        happen(n=n)
    ids = set(OutboxEvent.objects.values_list("event_id", flat=True))
    assert len(ids) == 3
    assert {one.version for one in ids} == {7}
    assert uuid7().int >> 80 >= max(ids).int >> 80  # the millisecond; within one the order is random
