from datetime import timedelta
from uuid import UUID

import orjson
import pytest
from django.db import transaction
from django.db.models import F

from aitbc.core import db as database
from aitbc.core import outbox
from aitbc.core.ids import uuid7
from aitbc.core.testing import cast
from aitbc.webhooks.models import Delivery, Endpoint
from aitbc.webhooks.sender import Sender
from aitbc.webhooks.tests.sink import sink


@pytest.fixture
def people(committed_db):
    """Real commits: the sender has a connection of its own."""


@pytest.fixture
def alice(people):
    return cast.person("alice")


@pytest.fixture
def receiver():
    with sink() as found:
        yield found


@pytest.fixture
def hook(alice, receiver):
    """Alice's webhook at the receiver: its document with the secret."""
    return register(alice, receiver.url)


def register(person, url, **more):
    response = person.post("/v1/webhooks", {"url": url} | more)
    assert response.status_code == 201, response.content
    return orjson.loads(response.content)


@pytest.fixture
def sender(people):
    sender = Sender()
    yield sender
    sender.close()


def send(sender, seconds=10.0):
    """Rounds until nothing is due and nothing under way."""
    import time

    until = time.monotonic() + seconds
    while sender.round() or due():
        assert time.monotonic() < until


def due():
    return database.value(
        """SELECT count(*)::int FROM webhooks_delivery d JOIN webhooks_endpoint e ON e.id = d.endpoint_id
            WHERE d.state = 'pending' AND e.enabled AND d.due_at <= clock_timestamp()
              AND coalesce(e.paused_until, '-infinity') <= clock_timestamp()"""
    )


def tell(person, event="job.completed", n=1, aggregate=None):
    """Events as an app's trigger writes them, and the deliveries made of them."""
    with transaction.atomic():
        for number in range(n):
            database.rows(
                "SELECT webhooks_tell(%s, %s, %s::uuid[], %s::jsonb)",
                (event, aggregate or f"job:{uuid7()}", [person.id], orjson.dumps({"n": number}).decode()),
            )
    while outbox.relay_once():
        pass


def pass_time(**span):
    """Move every row back in time: what a wait would bring, without waiting."""
    step = timedelta(**span)
    Delivery.objects.update(due_at=F("due_at") - step, created_at=F("created_at") - step)
    for name in ("paused_until", "previous_until", "failing_since"):
        Endpoint.objects.update(**{name: F(name) - step})


def only(hook):
    return Delivery.objects.get(endpoint_id=UUID(hook["id"]))
