"""Who calls the machine API: the header, the scope of the route, and nothing in between."""

import orjson
import pytest
from django.test import Client

from aitbc.core import ports
from aitbc.core.auth import Principal
from aitbc.core.ids import uuid7

pytestmark = pytest.mark.urls("aitbc.core.tests.urls")
ALICE = uuid7()


@pytest.fixture(autouse=True)
def keys(monkeypatch):
    """A provider of the port that knows these tokens, and is asked for exactly what was sent."""
    known: dict[str, Principal] = {}
    monkeypatch.setattr(ports, "_providers", ports._providers | {"auth.key": known.get})

    def give(token, *scopes):
        known[token] = Principal(uuid7(), "prefix", ALICE, "client", frozenset(scopes))
        return token

    return give


def get(path, header=None):
    response = Client().get(path, **({} if header is None else {"HTTP_AUTHORIZATION": header}))
    return response.status_code, orjson.loads(response.content)


def test_a_key_with_the_scope_is_let_in(keys):
    token = keys("t1", "jobs:read")
    assert get("/v1/closed", f"Bearer {token}") == (200, {"user": str(ALICE)})


@pytest.mark.parametrize("scheme", ["bearer", "BEARER", "Bearer ", "Bearer   "])
def test_the_scheme_is_read_without_regard_to_case_and_spaces(keys, scheme):
    assert get("/v1/closed", f"{scheme} {keys('t1', 'jobs:*')}")[0] == 200


@pytest.mark.parametrize("header", [None, "", "t1", "Basic t1", "Token t1", "Bearer", "Bearert1"])
def test_without_a_bearer_the_caller_is_asked_for_one(keys, header):
    keys("t1", "jobs:read")
    status, body = get("/v1/closed", header)
    assert (status, body["code"]) == (401, "auth.required")


@pytest.mark.parametrize("header", ["Bearer t2", "Bearer t1 t1", "Bearer ", "Bearer \xff"])
def test_an_unknown_key_is_unknown(keys, header):
    keys("t1", "jobs:read")
    status, body = get("/v1/closed", header)
    assert (status, body["code"]) == (401, "auth.invalid_key")


@pytest.mark.parametrize("scopes", [(), ("jobs:write",), ("miner",), ("money:*",), ("jobs",)])
def test_a_key_without_the_scope_is_told_which(keys, scopes):
    status, body = get("/v1/closed", f"Bearer {keys('t1', *scopes)}")
    assert (status, body["code"], body["scope"]) == (403, "auth.scope", "jobs:read")


@pytest.mark.parametrize(("scopes", "status"), [(("jobs:read",), 200), (("miner",), 200), (("money:read",), 403)])
def test_what_both_parties_do_takes_the_scope_of_either(keys, scopes, status):
    assert get("/v1/for-parties", f"Bearer {keys('t1', *scopes)}")[0] == status


@pytest.mark.parametrize("header", [None, "Bearer t2"])
def test_what_both_parties_do_is_not_open(header):
    assert get("/v1/for-parties", header)[0] == 401
