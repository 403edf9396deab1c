"""From the outbox to deliveries: many at once, each once, never past an earlier event of the aggregate."""

from pathlib import Path

import pytest
from django.db import transaction

from aitbc.core import db, outbox, ports
from aitbc.core.events import receiver
from aitbc.core.models import OutboxEvent
from aitbc.core.testing import cast
from aitbc.webhooks import events
from aitbc.webhooks.models import Delivery, Endpoint
from aitbc.webhooks.tests.conftest import register, tell

URL = "https://example.com/hook"


@pytest.fixture
def hook(alice):
    return register(alice, URL)


def announce(alice, *names, aggregate="job:1"):
    with transaction.atomic():
        for n, name in enumerate(names):
            payload = {"owners": [str(alice.id)], "data": {"n": n}}
            outbox.announce(name, aggregate, payload)


def made():
    return list(Delivery.objects.order_by("pk").values_list("event", flat=True))


def test_an_event_becomes_one_delivery_for_each_endpoint_of_its_owners(alice, hook):
    bob, carol = cast.person("bob"), cast.person("carol")
    register(bob, URL)
    register(bob, URL)
    register(carol, URL)
    with transaction.atomic():
        owners = [alice.id, bob.id, bob.id]
        db.rows("SELECT webhooks_tell('job.failed', 'job:1', %s, '{}')", (owners,))
    event = OutboxEvent.objects.get()

    assert outbox.relay_once() == 1

    assert not OutboxEvent.objects.exists()
    assert set(Delivery.objects.values_list("event_id", flat=True)) == {event.event_id}
    owners = [d.endpoint.owner_id for d in Delivery.objects.select_related("endpoint")]
    assert sorted(owners) == sorted([alice.id, bob.id, bob.id])
    assert {d.created_at for d in Delivery.objects.all()} == {event.created_at}


def test_a_repeat_of_an_event_adds_no_delivery(alice, hook):
    announce(alice, "job.completed")
    row = OutboxEvent.objects.get()
    for _ in range(3):
        db.rows("SELECT webhooks_fan_out(ARRAY[%s::bigint])", (row.pk,))
    outbox.relay_once()
    assert made() == ["job.completed"]


def test_nothing_is_written_for_those_who_do_not_listen(alice):
    tell(alice)
    assert not OutboxEvent.objects.exists()
    assert made() == []


def test_an_event_told_before_its_endpoint_was_switched_off_is_dropped(alice, hook):
    announce(alice, "job.completed")
    Endpoint.objects.update(enabled=False)
    assert outbox.relay_once() == 1
    assert (made(), OutboxEvent.objects.count()) == ([], 0)


def test_a_batch_does_not_pass_another_event_of_its_aggregate(alice, hook, monkeypatch):
    monkeypatch.setattr(ports, "_subscribers", ports._subscribers.copy())
    heard = []
    receiver("test.happened")(lambda event: heard.append(made()) if len(heard) else heard.append(1) or 1 / 0)
    announce(alice, "job.completed", "test.happened", "job.failed")
    announce(alice, "job.expired", aggregate="job:2")

    outbox.relay_once()  # the receiver in the middle fails: the one behind it waits
    assert made() == ["job.completed", "job.expired"]
    OutboxEvent.objects.update(next_attempt_at="2020-01-01T00:00:00Z")
    outbox.relay_once()
    assert heard[1:] == [["job.completed", "job.expired"]]
    assert made() == ["job.completed", "job.expired", "job.failed"]


def test_an_event_that_somebody_else_receives_too_reaches_both(alice, hook, monkeypatch):
    monkeypatch.setattr(ports, "_subscribers", ports._subscribers.copy())
    monkeypatch.setitem(ports._subscribers, "event:job.failed", [*ports._subscribers["event:job.failed"]])
    heard = []
    receiver("job.failed")(heard.append)
    announce(alice, "job.failed", "job.completed")
    assert outbox.relay_once() == 2
    assert (len(heard), made()) == (1, ["job.failed", "job.completed"])


def partition(aggregate):
    return db.value("SELECT hashtextextended(%s::text, 0) & 63", (aggregate,))


def test_a_batch_that_fails_is_delivered_one_by_one_and_halts_its_bad_aggregate_only(alice, hook):
    """A payload that cannot be told, which no trigger of ours writes."""
    first, bad, third = [n for n in (f"job:{i}" for i in range(2000)) if partition(n) == partition("job:0")][:3]
    announce(alice, "job.completed", aggregate=first)
    with transaction.atomic():
        outbox.announce("job.failed", bad, {"owners": ["nobody"], "data": {}})
    announce(alice, "job.canceled", aggregate=bad)
    announce(alice, "job.expired", aggregate=third)

    while outbox.relay_once():
        pass

    assert sorted(made()) == ["job.completed", "job.expired"]
    bad, behind = OutboxEvent.objects.order_by("id")
    assert (bad.event, bad.attempts, behind.event, behind.attempts) == ("job.failed", 1, "job.canceled", 0)
    assert "nobody" in bad.last_error


def test_bodies_of_twenty_kilobytes_are_refused_by_the_database(alice, hook):
    from django.db import IntegrityError

    tell(alice)
    with pytest.raises(IntegrityError, match="delivery_small"):
        Delivery.objects.update(body="x" * 20_000)


def test_every_event_that_apps_declare_is_in_the_manual():
    """And in the triggers: `payment.` and `withdrawal.` are followed by the row's state."""
    manual = (Path(__file__).parents[3] / "docs" / "webhooks.md").read_text().replace("`.", "`withdrawal.")
    assert {"job.completed", "job.failed", "job.canceled", "job.expired"} <= events.CATALOGUE.keys()
    for event, scope in events.CATALOGUE.items():
        (line,) = [line for line in manual.splitlines() if f"`{event}`" in line and line.startswith("|")]
        assert f"`{scope}`" in line
