"""`/v1/webhooks` as its users see it: theirs alone, strict about input, refusals change nothing."""

from datetime import timedelta
from uuid import uuid4

import orjson
import pytest

from aitbc.core import clock
from aitbc.core.testing import cast
from aitbc.core.testing.snapshot import nothing_changes
from aitbc.webhooks.models import Delivery, Endpoint
from aitbc.webhooks.tests.conftest import only, pass_time, register, send, tell

URL = "https://example.com/hook"


def read(response, status=200):
    assert response.status_code == status, response.content
    return orjson.loads(response.content)


def refused(response, status, code):
    found = orjson.loads(response.content)
    assert (response.status_code, found["code"]) == (status, code), response.content
    return found


def test_a_webhook_is_made_listed_changed_and_removed(alice):
    made = read(alice.post("/v1/webhooks", {"url": URL, "events": ["job.failed"]}), 201)
    secret = made.pop("secret")
    assert secret.startswith("whsec_")
    assert (made["url"], made["events"], made["enabled"]) == (URL, ["job.failed"], True)
    assert read(alice.get("/v1/webhooks")) == {"items": [made], "next": None}
    assert read(alice.get(f"/v1/webhooks/{made['id']}")) == made

    changed = read(alice.patch(f"/v1/webhooks/{made['id']}", {"enabled": False, "events": []}))
    assert changed == made | {"enabled": False, "events": []}
    assert read(alice.patch(f"/v1/webhooks/{made['id']}", {})) == changed
    assert read(alice.patch(f"/v1/webhooks/{made['id']}", {"url": URL + "2"}))["url"] == URL + "2"

    assert read(alice.delete(f"/v1/webhooks/{made['id']}"))["id"] == made["id"]
    assert read(alice.get("/v1/webhooks"))["items"] == []
    assert not Endpoint.objects.exists()


def test_removing_a_webhook_takes_its_deliveries(alice, hook):
    tell(alice, n=3)
    read(alice.delete(f"/v1/webhooks/{hook['id']}"))
    assert not Delivery.objects.exists()


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", ""),
        ("PATCH", ""),
        ("DELETE", ""),
        ("POST", "/rotate"),
        ("POST", "/test"),
        ("GET", "/deliveries"),
        ("POST", "/deliveries/{event}/replay"),
        ("POST", "/replay?since=2020-01-01T00:00:00Z"),
    ],
)
def test_a_webhook_is_nobody_elses_to_see_or_touch(alice, hook, method, path):
    tell(alice)
    mallory = cast.person("mallory")
    path = path.format(event=only(hook).event_id)
    with nothing_changes():
        body = {"enabled": False} if method == "PATCH" else None
        refused(mallory.call(method, f"/v1/webhooks/{hook['id']}{path}", body), 404, "webhook.unknown")
        unknown = f"/v1/webhooks/{uuid4()}{path}"
        refused(alice.call(method, unknown, body), 404, "webhook.unknown")


@pytest.mark.parametrize(
    ("scopes", "method", "status"),
    [
        (("webhooks:read",), "GET", 200),
        (("webhooks:read",), "POST", 403),
        (("jobs:*", "money:*"), "GET", 403),
        (("jobs:read", "money:read", "webhooks:write"), "POST", 201),
    ],
)
def test_scopes(people, scopes, method, status):
    who = cast.person("bob", scopes=scopes)
    assert who.call(method, "/v1/webhooks", {"url": URL} if method == "POST" else None).status_code == status


@pytest.mark.parametrize(
    ("scope", "events", "lacks"),
    [
        ("jobs:read", [], "money:read"),
        ("jobs:read", ["job.failed", "payment.released"], "money:read"),
        ("money:read", ["job.failed"], "jobs:read"),
        ("jobs:read", ["job.failed"], None),
        ("money:*", ["withdrawal.final", "deposit.credited", "payout.claimable"], None),
    ],
)
def test_a_key_has_nothing_sent_that_it_may_not_read(people, scope, events, lacks):
    who = cast.person("bob", scopes=("webhooks:write", scope))
    response = who.post("/v1/webhooks", {"url": URL, "events": events})
    if lacks is None:
        read(response, 201)
    else:
        assert refused(response, 403, "auth.scope")["scope"] == lacks
        assert not Endpoint.objects.exists()


def test_a_lesser_key_cannot_turn_a_webhook_elsewhere(alice, hook):
    from aitbc.accounts.keys import create_key

    _, token = create_key(user=alice.user, name="lesser", scopes=("webhooks:write", "jobs:read"))
    lesser = cast.Person(alice.user, token, alice.principal)
    with nothing_changes():
        refused(lesser.patch(f"/v1/webhooks/{hook['id']}", {"url": URL}), 403, "auth.scope")


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"url": "https://10.0.0.1/"}, "request.invalid"),
        ({"url": "http://example.com/"}, "request.invalid"),
        ({"url": ""}, "request.invalid"),
        ({"url": "https://example.com/" + "a" * 500}, "request.invalid"),
        ({"url": URL, "events": ["job.exploded"]}, "webhook.events"),
        ({"url": URL, "events": ["job.failed"] * 51}, "request.invalid"),
        ({"url": URL, "secret": "whsec_mine"}, "request.invalid"),
    ],
)
def test_bad_input_is_named_and_changes_nothing(alice, hook, body, code):
    with nothing_changes():
        found = refused(alice.post("/v1/webhooks", body), 422, code)
        refused(alice.patch(f"/v1/webhooks/{hook['id']}", body), 422, code)
    assert found["errors"]


@pytest.mark.parametrize("body", [{}, {"events": []}, {"url": None}])
def test_a_webhook_has_an_address(alice, body):
    refused(alice.post("/v1/webhooks", body), 422, "request.invalid")
    assert not Endpoint.objects.exists()


def test_a_user_has_at_most_twenty(alice, in_threads):
    for _ in range(18):
        register(alice, URL)
    statuses = in_threads(lambda _: alice.post("/v1/webhooks", {"url": URL}).status_code, 5)
    assert sorted(statuses) == [201, 201, 409, 409, 409]
    refused(alice.post("/v1/webhooks", {"url": URL}), 409, "webhook.too_many")
    assert Endpoint.objects.count() == 20
    register(cast.person("bob"), URL)


def test_a_repeated_request_makes_one_webhook_and_shows_the_same_secret(alice):
    first, second = (alice.post("/v1/webhooks", {"url": URL}, idempotency_key="k") for _ in range(2))
    assert (first.content, second["Idempotency-Replayed"]) == (second.content, "true")
    assert Endpoint.objects.count() == 1
    refused(alice.post("/v1/webhooks", {"url": URL + "2"}, idempotency_key="k"), 422, "idempotency.mismatch")


def test_a_repeated_rotation_rotates_once(alice, hook):
    path = f"/v1/webhooks/{hook['id']}/rotate"
    answers = {alice.post(path, idempotency_key="r").content for _ in range(3)}
    nonce = bytes(Endpoint.objects.get().nonce)
    assert len(answers) == 1
    assert orjson.loads(answers.pop())["secret"] != hook["secret"]
    assert alice.post(path, idempotency_key="s").status_code == 200
    assert bytes(Endpoint.objects.get().previous_nonce) == nonce


def test_an_overlap_is_of_a_bounded_length(alice, hook):
    path = f"/v1/webhooks/{hook['id']}/rotate?overlap_seconds="
    with nothing_changes():
        for wrong in ("-1", "604801", "x"):
            refused(alice.post(path + wrong), 422, "request.invalid")
    read(alice.post(path + "60"))
    left = Endpoint.objects.get().previous_until - clock.database_now()
    assert timedelta(seconds=50) < left <= timedelta(seconds=60)


def test_a_test_event_goes_to_its_endpoint_whatever_it_filters(alice, receiver, sender):
    hook = register(alice, receiver.url, events=["job.failed"])
    other = register(alice, receiver.url)
    path = f"/v1/webhooks/{hook['id']}/test"
    delivery = read(alice.post(path, idempotency_key="t"), 201)
    assert read(alice.post(path, idempotency_key="t"), 201) == delivery
    assert (delivery["type"], delivery["state"], delivery["attempts"]) == ("webhook.test", "pending", 0)

    send(sender)

    assert receiver.ids == [delivery["id"]]
    assert orjson.loads(receiver.requests[0].body)["data"] == {"webhook": hook["id"]}
    assert read(alice.get(f"/v1/webhooks/{other['id']}/deliveries"))["items"] == []


def test_deliveries_are_listed_newest_first_by_pages_and_filters(alice, hook, receiver, sender):
    tell(alice, "job.completed", n=3)
    send(sender)
    tell(alice, "job.failed", n=2)
    path = f"/v1/webhooks/{hook['id']}/deliveries"

    everything = read(alice.get(path))["items"]
    assert [one["id"] for one in everything] == sorted((one["id"] for one in everything), reverse=True)
    assert [one["type"] for one in everything] == ["job.failed"] * 2 + ["job.completed"] * 3
    assert [one["state"] for one in everything] == ["pending"] * 2 + ["delivered"] * 3
    first = read(alice.get(path + "?limit=2"))
    second = read(alice.get(f"{path}?limit=2&cursor={first['next']}"))
    third = read(alice.get(f"{path}?limit=2&cursor={second['next']}"))
    assert first["items"] + second["items"] + third["items"] == everything
    assert third["next"] is None
    assert read(alice.get(path + "?state=delivered"))["items"] == everything[2:]
    assert read(alice.get(path + "?type=job.failed"))["items"] == everything[:2]
    assert read(alice.get(path + "?state=dead")) == {"items": [], "next": None}
    refused(alice.get(path + "?state=lost"), 422, "request.invalid")
    refused(alice.get(path + "?cursor=x"), 422, "request.invalid")


def test_a_delivery_is_sent_again_under_its_id(alice, hook, receiver, sender):
    tell(alice)
    send(sender)
    path = f"/v1/webhooks/{hook['id']}/deliveries/{only(hook).event_id}/replay"

    assert read(alice.post(path, idempotency_key="a"), 202) == {"replayed": 1}
    assert read(alice.post(path, idempotency_key="a"), 202) == {"replayed": 1}
    assert read(alice.post(path), 202) == {"replayed": 0}  # it is being tried
    send(sender)

    assert len(receiver.requests) == 2
    assert len(set(receiver.ids)) == 1
    assert receiver.requests[0].body == receiver.requests[1].body
    refused(alice.post(f"/v1/webhooks/{hook['id']}/deliveries/{uuid4()}/replay"), 404, "webhook.unknown")


def test_dead_deliveries_since_a_time_are_sent_again(alice, hook, receiver, sender):
    tell(alice, n=4)
    pass_time(hours=5)
    tell(alice, n=3)
    Delivery.objects.update(state="dead", attempts=10, status=500)
    delivered = Delivery.objects.last()
    Delivery.objects.filter(pk=delivered.pk).update(state="delivered", status=200)
    since = (clock.database_now() - timedelta(hours=1)).isoformat().replace("+", "%2B")
    path = f"/v1/webhooks/{hook['id']}/replay?since={since}"

    assert read(alice.post(path), 202) == {"replayed": 3}
    send(sender)
    assert (len(receiver.requests), Delivery.objects.filter(state="dead").count()) == (3, 3)
    assert read(alice.post(path + "&delivered=true"), 202) == {"replayed": 3}
    refused(alice.post(f"/v1/webhooks/{hook['id']}/replay?since=2026-01-01T00:00:00"), 422, "request.invalid")
