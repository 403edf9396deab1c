"""Tasks that failed for good: buried once with all that is needed, sent again once."""

import json

import pytest
import redis
from celery import shared_task, signals
from django.conf import settings as live

from aitbc.celery import app, bury
from aitbc.core.deadletters import bury_task, requeue
from aitbc.core.errors import Conflict, NotFound, Unavailable
from aitbc.core.ids import uuid7
from aitbc.core.models import DeadTask
from aitbc.core.tasks import RETRY_UNAVAILABLE

pytestmark = pytest.mark.django_db
calls: list[tuple[object, ...]] = []


@shared_task(name="core-tests.fail")
def fail(*args, **kwargs):
    calls.append(args)
    raise ValueError(f"broken\x00 by {args}")


@shared_task(name="core-tests.wait", **RETRY_UNAVAILABLE)
def wait():
    calls.append(())
    raise Unavailable("x.away", "not now")


@pytest.fixture(autouse=True)
def _no_calls():
    calls.clear()


def run(task, *args, **kwargs):
    return task.apply(args=args, kwargs=kwargs, task_id=str(uuid7()))


def test_a_failed_task_is_buried_with_what_it_was_given():
    result = run(fail, 1, "two", three=[3])
    dead = DeadTask.objects.get()
    assert (dead.task_id, dead.name, dead.queue) == (result.id, "core-tests.fail", "default")
    assert (dead.args, dead.kwargs) == ([1, "two"], {"three": [3]})
    assert dead.error == repr(result.result)
    assert "raise ValueError" in dead.traceback
    assert dead.requeued_at is None


def test_the_burial_is_what_celery_calls():
    assert bury in [reference() for _, reference in signals.task_failure.receivers]


def test_one_task_is_buried_once():
    for _ in range(2):
        bury_task(task=fail, task_id="same", error=ValueError("x"), args=(1,))
    assert DeadTask.objects.count() == 1


def test_only_what_is_unavailable_is_tried_again(monkeypatch):
    monkeypatch.setitem(wait.__dict__, "default_retry_delay", 0)
    run(fail)
    assert len(calls) == 1
    calls.clear()
    run(wait)
    assert len(calls) == 1 + RETRY_UNAVAILABLE["max_retries"]
    assert sorted(DeadTask.objects.values_list("name", flat=True)) == ["core-tests.fail", "core-tests.wait"]


@pytest.fixture
def queue():
    """A queue of its own on the real broker, empty before and after."""
    name = f"core-tests-{uuid7().hex[-12:]}"
    with redis.Redis.from_url(live.CELERY_BROKER_URL) as broker:
        yield name, lambda: [json.loads(message) for message in broker.lrange(name, 0, -1)]
        broker.delete(name)


def buried(queue, **changes):
    fields = {"task_id": str(uuid7()), "name": "core-tests.fail", "queue": queue, "args": [1], "kwargs": {"a": 2}}
    return DeadTask.objects.create(**(fields | {"error": "e", "traceback": "t"} | changes))


def test_a_dead_task_is_sent_again_with_the_same_arguments(queue, django_capture_on_commit_callbacks):
    name, messages = queue
    dead = buried(name)
    with django_capture_on_commit_callbacks(execute=True):
        assert requeue(dead_id=dead.pk).requeued_at is not None
        assert messages() == []  # not before the commit
    (message,) = messages()
    assert message["headers"]["task"] == "core-tests.fail"
    assert message["headers"]["id"] != dead.task_id
    assert json.loads(message["headers"]["argsrepr"].replace("'", '"')) == [1]


def test_a_dead_task_is_sent_again_once(queue, django_capture_on_commit_callbacks):
    name, messages = queue
    dead = buried(name)
    with django_capture_on_commit_callbacks(execute=True):
        requeue(dead_id=dead.pk)
        with pytest.raises(Conflict):
            requeue(dead_id=dead.pk)
    assert len(messages()) == 1


def test_an_unknown_dead_task_is_unknown():
    with pytest.raises(NotFound):
        requeue(dead_id=uuid7())


def test_tasks_go_to_the_queue_of_their_kind():
    route = app.amqp.router.route
    assert route({}, "gpu.work")["queue"].name == "gpu"
    assert route({}, "trading.settle")["queue"].name == "settlement"
    assert route({}, "core.forget_old_keys")["queue"].name == "default"
