"""Errors: both APIs answer every error alike, in one shape, and give away nothing internal."""

import re

import orjson
import pytest
from django.core.exceptions import PermissionDenied, SuspiciousOperation
from django.db import InterfaceError, OperationalError
from django.http import Http404
from django.test import Client
from rest_framework import exceptions as drf

from aitbc.core import errors
from aitbc.core.tests import urls

pytestmark = pytest.mark.urls("aitbc.core.tests.urls")
MEMBERS = {"type", "title", "status", "detail", "instance", "code", "request_id"}


def answer(path, *, raising=None, client=None, **options):
    """(status, problem document, headers) of a GET, or of a POST when a body is given."""
    urls.RAISED["it"] = raising
    client = client or Client()
    method = client.post if "data" in options else client.get
    response = method(path, **options)
    return response.status_code, orjson.loads(response.content), response.headers


def both(raising):
    ninja = answer("/v1/raise/it", raising=raising)
    framework = answer("/api/raise/it", raising=raising)
    plain = answer("/v1/plain/it", raising=raising)
    for status, body, headers in (ninja, framework, plain):
        assert headers["Content-Type"] == "application/problem+json"
        assert body["status"] == status
        assert body.pop("request_id") == headers["X-Request-ID"]
        assert body.pop("instance") in ("/v1/raise/it", "/api/raise/it", "/v1/plain/it")
    assert ninja[:2] == framework[:2] == plain[:2]
    return ninja


KINDS = {
    errors.NotFound: (404, "Not found"),
    errors.Invalid: (422, "Invalid input"),
    errors.Forbidden: (403, "Forbidden"),
    errors.Conflict: (409, "Conflict"),
    errors.Unavailable: (503, "Unavailable"),
    errors.Unauthenticated: (401, "Unauthenticated"),
    errors.NotReady: (425, "Too early"),
    errors.TooMany: (429, "Too many requests"),
}


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_a_domain_error_is_the_same_problem_everywhere(kind):
    status, title = KINDS[kind]
    found, body, _ = both(kind("thing.wrong", "what happened", limit=5))
    assert found == status
    assert body == {
        "type": "urn:aitbc:problem:thing.wrong",
        "title": title,
        "status": status,
        "detail": "what happened",
        "code": "thing.wrong",
        "limit": 5,
    }


def test_every_kind_of_error_is_covered():
    def below(kind):
        return {kind, *(inner for child in kind.__subclasses__() for inner in below(child))}

    assert below(errors.DomainError) - {errors.DomainError} == set(KINDS)


def test_a_problem_has_the_members_of_the_rfc_and_ours():
    _, body, headers = answer("/v1/raise/it", raising=errors.NotFound("thing.unknown", "no such thing"))
    assert set(body) == MEMBERS
    assert body["instance"] == "/v1/raise/it"
    assert "WWW-Authenticate" not in headers
    assert "Retry-After" not in headers


def test_who_is_unknown_is_told_how_to_say_it():
    assert both(errors.Unauthenticated("auth.required", "who?"))[2]["WWW-Authenticate"] == "Bearer"


def test_who_should_wait_is_told_how_long():
    assert both(errors.TooMany("x.y", "slower", retry_after=7))[2]["Retry-After"] == "7"
    assert both(errors.Unavailable("x.y", "away"))[2]["Retry-After"] == "1"
    assert "retry_after" not in both(errors.TooMany("x.y", "slower", retry_after=7))[1]


FRAMEWORK = {
    "Http404": (Http404("secret"), 404, "http.not_found"),
    "drf.NotFound": (drf.NotFound("secret"), 404, "http.not_found"),
    "PermissionDenied": (PermissionDenied("secret"), 403, "auth.forbidden"),
    "drf.PermissionDenied": (drf.PermissionDenied("secret"), 403, "auth.forbidden"),
    "drf.NotAuthenticated": (drf.NotAuthenticated(), 401, "auth.required"),
    "drf.AuthenticationFailed": (drf.AuthenticationFailed("secret"), 401, "auth.required"),
    "drf.ParseError": (drf.ParseError("secret"), 400, "http.malformed"),
    "drf.Throttled": (drf.Throttled(wait=3), 429, "http.too_many"),
    "SuspiciousOperation": (SuspiciousOperation("secret"), 400, "http.malformed"),
    "OperationalError": (OperationalError("secret"), 503, "database.unavailable"),
    "InterfaceError": (InterfaceError("secret"), 503, "database.unavailable"),
}


@pytest.mark.parametrize("name", FRAMEWORK)
def test_an_error_of_the_frameworks_is_put_into_our_words(name):
    error, status, code = FRAMEWORK[name]
    found, body, _ = both(error)
    assert (found, body["code"]) == (status, code)
    assert "secret" not in str(body)


@pytest.mark.parametrize("error", [RuntimeError("s3cret path"), KeyError("s3cret"), AssertionError("s3cret")])
def test_a_fault_of_ours_is_hidden_and_logged_with_its_traceback(error, caplog):
    status, body, headers = both(error)
    assert (status, body["code"]) == (500, "internal.error")
    assert "s3cret" not in str(body) + str(headers)
    assert "Traceback" not in str(body)
    logged = [record for record in caplog.records if record.name == "aitbc.core.http"]
    assert len(logged) == 3
    assert all("s3cret" in record.msg["exception"] for record in logged)


def test_a_page_for_people_shows_no_problem_document():
    urls.RAISED["it"] = RuntimeError("s3cret")
    response = Client(raise_request_exception=False).get("/page/it")
    assert response.status_code == 500
    assert b"s3cret" not in response.content


# -- validation --------------------------------------------------------------------------------

BODIES = {
    "nothing": ({}, [["body", "amount"]]),
    "a wrong type": ({"amount": "many"}, [["body", "amount"]]),
    "two faults": ({"amount": None, "names": 5}, [["body", "amount"], ["body", "names"]]),
}


@pytest.mark.parametrize("case", BODIES)
@pytest.mark.parametrize("path", ["/v1/body", "/api/body"])
def test_a_wrong_body_names_its_fields(path, case):
    sent, locs = BODIES[case]
    status, body, _ = answer(path, data=orjson.dumps(sent), content_type="application/json")
    assert (status, body["code"], body["title"]) == (422, "request.invalid", "Invalid input")
    assert [error["loc"] for error in body["errors"]] == locs
    assert all(error["msg"] for error in body["errors"])
    assert set(body) == MEMBERS | {"errors"}


def test_an_item_of_a_list_is_named_by_its_number():
    sent = orjson.dumps({"amount": 1, "names": ["a", []]})
    for path in ("/v1/body", "/api/body"):
        _, body, _ = answer(path, data=sent, content_type="application/json")
        assert [error["loc"] for error in body["errors"]] == [["body", "names", "1"]]


@pytest.mark.parametrize("path", ["/v1/body", "/api/body"])
@pytest.mark.parametrize("sent", [b"{", b"", b"\xff", b'{"amount": 1}}'])
def test_a_body_that_is_no_json_is_malformed(path, sent):
    status, body, headers = answer(path, data=sent, content_type="application/json")
    assert (status, body["code"]) in ((400, "http.malformed"), (422, "request.invalid"))
    assert headers["Content-Type"] == "application/problem+json"


# -- addresses and methods ---------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/v1/none", "/v1/raise", "/api/none", "/api/", "/health/none"])
def test_an_unknown_address_of_an_api_is_a_problem(path):
    status, body, headers = answer(path)
    assert (status, body["code"], body["instance"]) == (404, "http.not_found", path)
    assert headers["Content-Type"] == "application/problem+json"


def test_an_unknown_address_for_people_is_a_plain_page():
    response = Client().get("/nothing/here")
    assert (response.status_code, response.content) == (404, b"Not found.")


@pytest.mark.parametrize(("path", "allowed"), [("/v1/body", "POST"), ("/api/body", "POST, OPTIONS")])
def test_a_wrong_method_is_a_problem_that_says_what_is_right(path, allowed):
    status, body, headers = answer(path)
    assert (status, body["code"]) == (405, "http.method_not_allowed")
    assert headers["Allow"] == allowed


def test_a_foreign_host_is_refused_as_a_problem():
    status, body, _ = answer("/api/closed", HTTP_HOST="evil.example")
    assert (status, body["code"]) == (400, "http.malformed")
    assert "evil" not in str(body)


def test_who_is_nobody_gets_401_of_django_rest_framework_too():
    status, body, headers = answer("/api/closed")
    assert (status, body["code"], headers["WWW-Authenticate"]) == (401, "auth.required", "Bearer")


# -- request ids -------------------------------------------------------------------------------


@pytest.mark.parametrize("given", ["abcdefgh", "a" * 64, "01J-x_y.z:".replace(":", "0")])
def test_a_given_request_id_is_used(given):
    _, body, headers = answer("/v1/none", headers={"X-Request-ID": given})
    assert (headers["X-Request-ID"], body["request_id"]) == (given, given)


@pytest.mark.parametrize("given", ["", "short", "a" * 65, "has space1", "läng-genug", "x\nInjected: 1", "a;b<script>"])
def test_a_malformed_request_id_is_replaced(given):
    _, body, headers = answer("/v1/none", HTTP_X_REQUEST_ID=given)
    assert re.fullmatch("[0-9a-f]{24}", headers["X-Request-ID"])
    assert body["request_id"] == headers["X-Request-ID"]


def test_every_request_gets_an_id_of_its_own():
    found = {answer("/v1/none")[2]["X-Request-ID"] for _ in range(5)}
    assert len(found) == 5


# -- the real machine API ----------------------------------------------------------------------


@pytest.mark.urls("aitbc.urls")
@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("/v1/jobs", 401, "auth.required"),
        ("/v1/nothing", 404, "http.not_found"),
        ("/api/accounts/me", 401, "auth.required"),
        ("/api/accounts/keys/not-a-uuid", 404, "http.not_found"),
    ],
)
def test_the_platforms_own_addresses_answer_in_that_shape(path, status, code):
    found, body, headers = answer(path)
    assert (found, body["code"], headers["Content-Type"]) == (status, code, "application/problem+json")
