"""What receivers check, checked by the specification's own library (bar R1's refusals)."""

import time
from uuid import UUID

import orjson
import pytest
from standardwebhooks import Webhook, WebhookVerificationError

from aitbc.core import db
from aitbc.webhooks.models import Endpoint
from aitbc.webhooks.tests.conftest import pass_time, register, send, tell
from aitbc.webhooks.tests.sink import sink


def rotate(alice, hook, seconds=3600):
    response = alice.post(f"/v1/webhooks/{hook['id']}/rotate?overlap_seconds={seconds}")
    assert response.status_code == 200
    return orjson.loads(response.content)["secret"]


@pytest.fixture
def request_of(alice, receiver, sender):
    def one():
        tell(alice)
        send(sender)
        return receiver.requests[-1]

    return one


def verified(secret, request, **changes):
    headers = request.headers | {name.replace("_", "-"): value for name, value in changes.items()}
    try:
        return Webhook(secret).verify(request.body, headers)
    except WebhookVerificationError as error:
        return str(error)


def test_the_library_takes_what_we_sign(hook, request_of):
    assert hook["secret"].startswith("whsec_")
    assert verified(hook["secret"], request_of())["type"] == "job.completed"


def test_a_secret_has_256_bits_and_is_its_endpoints_own(alice, hook):
    import base64

    with sink() as second:
        other = register(alice, second.url)
    assert other["secret"] != hook["secret"]
    assert len(base64.b64decode(hook["secret"].removeprefix("whsec_"))) == 32


def test_an_altered_request_is_refused(hook, request_of):
    request = request_of()
    body = bytearray(request.body)
    body[len(body) // 2] ^= 1
    request.body = bytes(body)
    assert verified(hook["secret"], request) == "No matching signature found"


@pytest.mark.parametrize("header", ["webhook-id", "webhook-timestamp", "webhook-signature"])
def test_a_request_without_its_headers_is_refused(hook, request_of, header):
    request = request_of()
    del request.headers[header]
    assert verified(hook["secret"], request) == "Missing required headers"


def test_another_id_another_time_another_secret_are_refused(alice, hook, request_of):
    request = request_of()
    stamp = int(request.headers["webhook-timestamp"])
    refusal = "No matching signature found"
    assert verified(hook["secret"], request, webhook_id="0" * 8) == refusal
    assert verified(hook["secret"], request, webhook_timestamp=str(stamp - 1)) == refusal
    with sink() as second:
        assert verified(register(alice, second.url)["secret"], request) == refusal


@pytest.mark.parametrize(("shift", "words"), [(301, "too old"), (-301, "too new")])
def test_a_request_out_of_its_time_is_refused(hook, request_of, monkeypatch, shift, words):
    """The library's tolerance is five minutes both ways."""
    import datetime as clock

    import standardwebhooks.webhooks as library

    request = request_of()
    stamp = int(request.headers["webhook-timestamp"])

    class Shifted(clock.datetime):
        @classmethod
        def now(cls, tz=None):
            return cls.fromtimestamp(stamp + shift, tz)

    monkeypatch.setattr(library, "datetime", Shifted)
    assert words in verified(hook["secret"], request)


def test_while_a_secret_is_rotated_both_verify_and_afterwards_the_new_one(alice, hook, request_of):
    new = rotate(alice, hook)
    assert new != hook["secret"]

    during = request_of()
    assert during.headers["webhook-signature"].count("v1,") == 2
    for secret in (new, hook["secret"]):
        assert verified(secret, during)["type"] == "job.completed"

    pass_time(seconds=3601)
    after = request_of()
    assert after.headers["webhook-signature"].count("v1,") == 1
    assert verified(new, after)["type"] == "job.completed"
    assert verified(hook["secret"], after) == "No matching signature found"


def test_a_rotation_without_overlap_ends_the_old_secret_at_once(alice, hook, request_of):
    new = rotate(alice, hook, seconds=0)
    request = request_of()
    assert verified(hook["secret"], request) == "No matching signature found"
    assert verified(new, request)["type"] == "job.completed"


def test_each_attempt_is_signed_anew_under_the_same_id(alice, hook, receiver, sender):
    receiver.answer = lambda request: (500, {})
    tell(alice)
    send(sender)
    time.sleep(1.1)
    pass_time(seconds=10)
    send(sender)
    first, second = receiver.requests
    assert first.headers["webhook-id"] == second.headers["webhook-id"]
    assert int(second.headers["webhook-timestamp"]) > int(first.headers["webhook-timestamp"])
    assert first.body == second.body
    assert verified(hook["secret"], second)["type"] == "job.completed"


def test_no_row_of_the_database_reveals_a_secret(alice, hook):
    """Also the stored answers of idempotent requests: a dump is not enough to forge."""
    made = alice.post("/v1/webhooks", {"url": "https://example.com/"}, idempotency_key="k")
    again = alice.post("/v1/webhooks", {"url": "https://example.com/"}, idempotency_key="k")
    assert again.content == made.content
    turned = alice.call("POST", f"/v1/webhooks/{hook['id']}/rotate", {}, idempotency_key="r")
    secrets = [orjson.loads(made.content)["secret"], orjson.loads(turned.content)["secret"], hook["secret"]]
    tables = [name for (name,) in db.rows("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")]
    import base64

    for secret in secrets:
        plain = secret.removeprefix("whsec_")
        for wanted in (plain, plain.rstrip("="), base64.b64decode(plain).hex()):
            for table in tables:
                found = f'SELECT count(*) FROM "{table}" t WHERE position(%s IN t::text) > 0'
                assert db.value(found, (wanted,)) == 0, table
    assert Endpoint.objects.count() == 2


def test_a_secret_outlives_the_rotation_of_the_platforms_key(alice, hook, request_of, settings):
    from aitbc.webhooks import endpoints

    settings.SECRET_KEY_FALLBACKS = [settings.SECRET_KEY]
    settings.SECRET_KEY = "another" * 10
    endpoints.keys.cache_clear()
    request = request_of()
    endpoints.keys.cache_clear()
    assert verified(hook["secret"], request)["type"] == "job.completed"


def test_a_secret_is_shown_when_it_is_made_and_never_again(alice, hook):
    for path in ("/v1/webhooks", f"/v1/webhooks/{hook['id']}", f"/v1/webhooks/{hook['id']}/deliveries"):
        answer = alice.get(path).content.decode()
        assert "whsec" not in answer
        assert bytes(Endpoint.objects.get(pk=UUID(hook["id"])).nonce).hex() not in answer
