"""Rule 28: events are delivered in order per aggregate; a dead one halts its own aggregate only."""

import pytest
from django.db import transaction

from aitbc.core import events, outbox
from aitbc.core.models import OutboxEvent


@pytest.fixture
def heard(monkeypatch):
    """Names what it is told, except for the aggregate `bad`."""
    told = []

    def receive(event):
        if event.aggregate == "bad":
            raise ValueError("no")
        told.append((event.aggregate, event.payload["n"], event.version))

    monkeypatch.setattr(outbox, "receivers", lambda name: [receive])
    return told


def announce(*names):
    with transaction.atomic():
        for n, aggregate in enumerate(names):
            outbox.announce("test.happened", aggregate, {"n": n})


def test_order_and_growing_versions_per_aggregate(db, heard):
    announce("a", "b", "a", "b", "a")

    assert outbox.relay_once() == 5

    for aggregate, order in (("a", [0, 2, 4]), ("b", [1, 3])):
        mine = [(n, version) for name, n, version in heard if name == aggregate]
        assert [n for n, _ in mine] == order
        assert [version for _, version in mine] == sorted(version for _, version in mine)
    assert OutboxEvent.objects.count() == 0


def test_a_dead_event_halts_only_its_aggregate(db, heard):
    announce("bad", "good", "bad")
    for _ in range(outbox.MAX_ATTEMPTS + 1):
        outbox.relay_once()
        OutboxEvent.objects.update(next_attempt_at="2020-01-01T00:00:00Z")

    assert [aggregate for aggregate, _, _ in heard] == ["good"]
    dead, waiting = OutboxEvent.objects.order_by("id")
    assert (dead.dead, dead.attempts) == (True, outbox.MAX_ATTEMPTS)
    assert "no" in dead.last_error
    assert (waiting.dead, waiting.attempts) == (False, 0)
    announce("good")
    assert outbox.relay_once() == 1


def test_an_event_is_written_with_its_change_or_not_at_all(db):
    def change():
        outbox.announce("test.happened", "a", {})
        raise RuntimeError

    with pytest.raises(RuntimeError), transaction.atomic():
        change()

    assert OutboxEvent.objects.count() == 0


def test_relays_at_once_deliver_each_event_once(committed_db, in_threads, monkeypatch):
    monkeypatch.setattr(outbox, "receivers", lambda name: [])
    announce(*(f"m{n}" for n in range(40)))

    assert sum(in_threads(lambda _: outbox.relay_once(), 4)) == 40
    assert OutboxEvent.objects.count() == 0


def test_the_real_receivers_are_those_that_apps_registered():
    assert events.receivers("gpu.miner_registered")
