"""/api/accounts: people manage their own account with a session; a key reads and cannot multiply."""

from datetime import UTC, datetime, timedelta

import orjson
import pytest
from django.test import Client
from django.utils import timezone

from aitbc.accounts import keys, parameters
from aitbc.accounts.models import ApiKey, User
from aitbc.core.ids import uuid7

pytestmark = pytest.mark.django_db
KEYS, ME, PARAMETERS = "/api/accounts/keys", "/api/accounts/me", "/api/accounts/parameters"


@pytest.fixture
def alice():
    return User.objects.create_user("alice@example.com", name="Alice")


@pytest.fixture
def session(alice):
    client = Client()
    client.force_login(alice)
    return client


@pytest.fixture
def with_key(alice):
    _, token = keys.create_key(user=alice, name="k", scopes=[s for s in keys.SCOPES if not s.endswith("*")])
    return Client(headers={"authorization": f"Bearer {token}"})


def read(response, status):
    assert response.status_code == status, response.content
    return orjson.loads(response.content)


def problem(response, status, code):
    body = read(response, status)
    assert response["Content-Type"] == "application/problem+json"
    assert (body["status"], body["code"]) == (status, code)
    return body


def new_key(client, **body):
    return client.post(KEYS, {"name": "laptop", "scopes": ["jobs:read"]} | body, content_type="application/json")


# -- who may -----------------------------------------------------------------------------------


@pytest.mark.parametrize("path", [ME, KEYS])
def test_strangers_are_asked_who_they_are(path):
    response = Client().get(path)
    problem(response, 401, "auth.required")
    assert response["WWW-Authenticate"] == "Bearer"


@pytest.mark.parametrize("header", ["Bearer ait_unknown", "Bearer ", "Bearer", "bearer x y"])
def test_an_unknown_key_is_refused_even_with_a_session(session, header):
    problem(session.get(ME, headers={"authorization": header}), 401, "auth.invalid_key")


def test_a_key_cannot_make_or_revoke_keys(with_key, alice):
    (key,) = ApiKey.objects.all()
    problem(new_key(with_key), 403, "auth.forbidden")
    problem(with_key.delete(f"{KEYS}/{key.pk}"), 403, "auth.forbidden")
    assert ApiKey.objects.get() == key
    assert ApiKey.objects.get().revoked_at is None


def test_a_key_reads_the_list_of_keys(with_key):
    assert len(read(with_key.get(KEYS), 200)["items"]) == 1


def test_a_session_without_its_csrf_token_cannot_write(alice):
    client = Client(enforce_csrf_checks=True)
    client.force_login(alice)
    problem(new_key(client), 403, "auth.forbidden")
    assert not ApiKey.objects.exists()


def test_an_inactive_user_is_nobody(session, alice):
    User.objects.update(is_active=False)
    problem(session.get(ME), 401, "auth.required")


# -- me ----------------------------------------------------------------------------------------


def test_the_user_sees_himself(session, alice):
    body = read(session.get(ME), 200)
    assert datetime.fromisoformat(body.pop("created_at")) == alice.created_at
    assert body == {"id": str(alice.pk), "email": "alice@example.com", "name": "Alice", "role": "client"}


def test_the_user_renames_himself_and_nothing_else(session, alice):
    change = {"name": "Ali", "role": "operator", "email": "root@example.com", "is_staff": True, "id": str(uuid7())}
    assert read(session.patch(ME, change, content_type="application/json"), 200)["name"] == "Ali"
    alice.refresh_from_db()
    assert (alice.name, alice.role, alice.email, alice.is_staff) == ("Ali", "client", "alice@example.com", False)


def test_a_name_has_its_length(session, alice):
    response = session.patch(ME, {"name": "x" * 101}, content_type="application/json")
    body = problem(response, 422, "request.invalid")
    assert [error["loc"] for error in body["errors"]] == [["body", "name"]]
    alice.refresh_from_db()
    assert alice.name == "Alice"


# -- keys --------------------------------------------------------------------------------------


def test_a_new_key_is_shown_in_full_this_once(session, alice):
    body = read(new_key(session, scopes=["miner", "jobs:read"]), 201)
    assert keys.find_principal(body["key"]).user_id == alice.pk
    assert body["scopes"] == ["jobs:read", "miner"]
    assert body["key"].startswith(f"ait_{body['prefix']}_")
    (listed,) = read(session.get(KEYS), 200)["items"]
    assert "key" not in listed
    assert listed["id"] == body["id"]
    assert body["key"].removeprefix(f"ait_{body['prefix']}_") not in session.get(KEYS).content.decode()


def test_a_key_may_have_an_end(session):
    end = timezone.now() + timedelta(days=1)
    body = read(new_key(session, expires_at=end.isoformat()), 201)
    assert datetime.fromisoformat(body["expires_at"]).astimezone(UTC) == end


@pytest.mark.parametrize(
    ("change", "loc"),
    [
        ({"scopes": []}, ["body", "scopes"]),
        ({"scopes": ["root"]}, ["body", "scopes", "0"]),
        ({"scopes": "miner"}, ["body", "scopes"]),
        ({"scopes": None}, ["body", "scopes"]),
        ({"name": ""}, ["body", "name"]),
        ({"name": "x" * 101}, ["body", "name"]),
        ({"name": "a\x00b"}, ["body", "name"]),
        ({"name": ["x"]}, ["body", "name"]),
        ({"expires_at": "tomorrow"}, ["body", "expires_at"]),
        ({"expires_at": "2001-01-01T00:00:00Z"}, ["body", "expires_at"]),
    ],
)
def test_a_key_asked_for_wrongly_names_the_field(session, change, loc):
    body = read(new_key(session, **change), 422)
    assert [error["loc"] for error in body["errors"]] == [loc]
    assert not ApiKey.objects.exists()


def test_a_read_only_field_given_is_ignored(session, alice):
    body = read(new_key(session, prefix="mine", user=str(uuid7()), revoked_at="2001-01-01T00:00:00Z"), 201)
    key = ApiKey.objects.get()
    assert (str(key.pk), key.user_id, key.revoked_at) == (body["id"], alice.pk, None)
    assert key.prefix != "mine"


@pytest.mark.parametrize("body", ["[]", "1", '"x"', "{", "", "null", "\x00"])
def test_a_body_that_is_no_object_is_refused(session, body):
    response = session.post(KEYS, body, content_type="application/json")
    assert response.status_code in (400, 422)
    assert response["Content-Type"] == "application/problem+json"
    assert not ApiKey.objects.exists()


def test_the_owner_revokes_his_key_and_may_say_it_twice(session, alice):
    key, token = keys.create_key(user=alice, name="k", scopes=["miner"])
    first = read(session.delete(f"{KEYS}/{key.pk}"), 200)
    assert first["revoked_at"] is not None
    assert keys.find_principal(token) is None
    assert read(session.delete(f"{KEYS}/{key.pk}"), 200) == first


def test_another_users_key_does_not_exist(session):
    bob = User.objects.create_user("bob@example.com")
    key, token = keys.create_key(user=bob, name="k", scopes=["miner"])
    problem(session.delete(f"{KEYS}/{key.pk}"), 404, "key.unknown")
    assert keys.find_principal(token) is not None
    assert read(session.get(KEYS), 200)["items"] == []
    problem(session.delete(f"{KEYS}/{uuid7()}"), 404, "key.unknown")


def test_the_list_of_keys_goes_page_by_page_in_few_queries(session, alice, django_assert_max_num_queries):
    made = [str(keys.create_key(user=alice, name=f"k{i}", scopes=["miner"])[0].pk) for i in range(5)]
    seen, url = [], f"{KEYS}?limit=2"
    while url:
        with django_assert_max_num_queries(4):
            page = read(session.get(url), 200)
        seen.append([item["id"] for item in page["items"]])
        url = page["next"]
    assert [len(page) for page in seen] == [2, 2, 1]
    assert sorted(id for page in seen for id in page) == sorted(made)


@pytest.mark.parametrize("method", ["put", "patch", "delete"])
def test_other_methods_are_refused(session, method):
    problem(getattr(session, method)(KEYS), 405, "http.method_not_allowed")


# -- parameters --------------------------------------------------------------------------------


def test_parameters_are_open_to_all():
    items = read(Client().get(f"{PARAMETERS}?limit=200"), 200)["items"]
    assert [item["name"] for item in items] == sorted(d.name for d in parameters.DEFINITIONS)
    fee = next(item for item in items if item["name"] == "fee_bps")
    assert (int(fee["value"]), int(fee["minimum"]), int(fee["maximum"])) == (250, 0, 2000)


def test_parameters_cannot_be_changed_here(session):
    problem(
        session.post(PARAMETERS, {"name": "fee_bps", "value": 0}, content_type="application/json"),
        405,
        "http.method_not_allowed",
    )
    assert parameters.get("fee_bps") == 250
