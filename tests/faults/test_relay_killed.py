"""Bar R3: kill -9 of the relay and of the sender at random moments; nothing is lost, nothing out of order.

The seed is printed; run again with AITBC_FAULT_SEED to repeat the moments of the kills.
"""

import multiprocessing
import os
import random
import signal
import threading
import time
from collections import defaultdict
from uuid import UUID

import pytest
from django.core.management import call_command
from django.db import connections, transaction

from aitbc.core import db, outbox, ports
from aitbc.core.events import receiver
from aitbc.core.models import OutboxEvent, PlatformTick
from aitbc.core.testing import cast
from aitbc.webhooks.models import Delivery
from aitbc.webhooks.tests.conftest import pass_time, register
from aitbc.webhooks.tests.sink import sink

pytestmark = pytest.mark.timeout(900)
KILLS = [10, pytest.param(200, marks=pytest.mark.slow)]
AGGREGATES = 20


@pytest.fixture
def seeded(seed):
    return random.Random(seed)


def start(command):
    """A command as a process of its own on this test's database; forked, so that it is at work at once."""
    connections.close_all()
    process = multiprocessing.get_context("fork").Process(target=call_command, args=(command,))
    process.start()
    return process


def kill_again_and_again(command, kills, rng, more):
    """`more` adds work before each start; the last process is left to finish it."""
    for number in range(kills):
        more(number)
        process = start(command)
        time.sleep(rng.uniform(0.02, 0.25))
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        assert process.exitcode == -signal.SIGKILL
    return start(command)


def stop(process):
    process.terminate()
    process.join(30)
    assert process.exitcode == 0


def wait_for(condition, seconds=60):
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.05)


@pytest.mark.parametrize("kills", KILLS)
def test_a_relay_that_is_killed_loses_nothing_and_keeps_the_order(committed_db, seeded, kills, tmp_path, monkeypatch):
    """An effect in the database happens once, whatever is killed; what a receiver does outside may happen
    again, with the same id."""
    monkeypatch.setattr(ports, "_subscribers", ports._subscribers.copy())
    heard = os.open(tmp_path / "heard", os.O_CREAT | os.O_APPEND | os.O_WRONLY)

    def receive(event):
        os.write(heard, f"{event.id} {event.aggregate} {event.payload['n']}\n".encode())
        db.rows(
            "INSERT INTO core_platform_tick (process, at, resumed_at) VALUES (%s, now(), now())",
            (f"{event.aggregate}:{event.payload['n']}",),
        )

    receiver("test.happened")(receive)
    announced = {}
    counts = defaultdict(int)

    def more(_):
        with transaction.atomic():
            for number in range(60):
                aggregate = f"a{number % AGGREGATES}"
                outbox.announce("test.happened", aggregate, {"n": counts[aggregate]})
                counts[aggregate] += 1
        announced.update({str(pk): None for pk in OutboxEvent.objects.values_list("event_id", flat=True)})

    last = kill_again_and_again("run_relay", kills, seeded, more)
    more(kills)  # so that the last one has certainly begun before it is stopped
    wait_for(lambda: not OutboxEvent.objects.exists())
    stop(last)

    effects = PlatformTick.objects.exclude(process="relay").order_by("id").values_list("process", flat=True)
    order = defaultdict(list)
    for effect in effects:
        aggregate, n = effect.split(":")
        order[aggregate].append(int(n))
    assert dict(order) == {aggregate: list(range(count)) for aggregate, count in counts.items()}
    told = [line.split() for line in (tmp_path / "heard").read_text().splitlines()]
    assert {event for event, _, _ in told} == set(announced)
    ids = {(aggregate, n): event for event, aggregate, n in told}
    assert all(ids[aggregate, n] == event for event, aggregate, n in told)  # a repeat has the same id
    assert len(ids) == len(announced) == 60 * (kills + 1)


@pytest.mark.parametrize("kills", KILLS)
def test_a_sender_that_is_killed_loses_no_delivery(committed_db, seeded, kills):
    """And a repeat, which its receiver may see, has the same `webhook-id` and body."""
    alice = cast.person("alice")
    with sink(answer=lambda request: (500 if seeded.random() < 0.05 else 204, {})) as receiver:
        register(alice, receiver.url)

        def more(number):
            with transaction.atomic():
                for _ in range(20):
                    data = f'{{"n": {number}}}'
                    db.rows(
                        "SELECT webhooks_tell('job.completed', 'job:' || uuidv7(), ARRAY[%s], %s)", (alice.id, data)
                    )
            while outbox.relay_once():
                pass
            pass_time(minutes=6)

        last = kill_again_and_again("run_webhooks", kills, seeded, more)

        def all_taken():
            pass_time(minutes=40)
            return not Delivery.objects.exclude(state="delivered").exists()

        wait_for(all_taken)
        stop(last)
        bodies = {request.headers["webhook-id"]: request.body for request in receiver.requests}
        assert all(bodies[request.headers["webhook-id"]] == request.body for request in receiver.requests)
        assert {UUID(event) for event in bodies} == set(Delivery.objects.values_list("event_id", flat=True))
        assert len(bodies) == 20 * kills


def test_a_long_transaction_delays_its_own_events_only_and_none_is_skipped(committed_db, monkeypatch):
    """Its rows have lower numbers than those that were delivered while it was open."""
    monkeypatch.setattr(ports, "_subscribers", ports._subscribers.copy())
    heard = []
    receiver("test.happened")(lambda event: heard.append(event.payload["n"]))
    written, finish = threading.Event(), threading.Event()

    def long():
        with transaction.atomic():
            outbox.announce("test.happened", "slow", {"n": -1})
            written.set()
            assert finish.wait(30)
        connections.close_all()

    thread = threading.Thread(target=long)
    thread.start()
    assert written.wait(30)
    for n in range(10):
        with transaction.atomic():
            outbox.announce("test.happened", f"quick{n}", {"n": n})
        outbox.relay_once()
    assert heard == list(range(10))
    first_seen = OutboxEvent.objects.count()
    finish.set()
    thread.join()

    assert (first_seen, outbox.relay_once()) == (0, 1)
    assert heard == [*range(10), -1]
