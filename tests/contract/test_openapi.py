"""Both OpenAPI documents are complete: every route, its summary, its answers and its errors, all typed."""

import re
from collections.abc import Iterator
from typing import Any

import orjson
import pytest
from django.test import Client
from django.urls import URLPattern, URLResolver, get_resolver

PROBLEM_JSON = "application/problem+json"
METHODS = ("get", "post", "put", "patch", "delete")
# The published document itself, and what ninja mounts to serve it.
UNDOCUMENTED = {"/v1/", "/v1/openapi.json", "/api/schema/"}
PUBLIC = {
    "/v1/services",
    "/v1/receipts/verify",
    "/v1/marketplace/assets",
    "/v1/marketplace/auctions",
    "/v1/marketplace/auctions/{}",
    "/v1/marketplace/offers",
    "/v1/marketplace/offers/{}",
    "/v1/reputation/leaderboard",
    "/v1/reputation/{}",
    "/v1/reputation/{}/events",
    "/v1/marketplace/offers/{}/standing",
    "/v1/marketplace/index",
    "/v1/marketplace/index/history",
    "/v1/marketplace/index/forecast",
    "/v1/marketplace/stats",
    "/v1/marketplace/performance",
    "/v1/marketplace/strategies",
    "/v1/regions",
    "/v1/reserves",
    "/v1/liabilities",
    "/v1/miners/ranking",
    "/v1/miners/{}/reliability",
    "/v1/miners/{}/heartbeats",
    "/v1/gpu/catalogue",
    "/api/accounts/parameters",
}


def machine_schema() -> dict[str, Any]:
    response = Client().get("/v1/openapi.json")
    assert response.status_code == 200
    return orjson.loads(response.content)


def people_schema() -> dict[str, Any]:
    response = Client().get("/api/schema/?format=json")
    assert response.status_code == 200
    return orjson.loads(response.content)


SCHEMAS = {"/v1": machine_schema, "/api": people_schema}


@pytest.fixture(scope="module", params=SCHEMAS)
def schema(request, django_db_setup, django_db_blocker):
    with django_db_blocker.unblock():
        return SCHEMAS[request.param]()


def operations(schema) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, item in schema["paths"].items():
        for method in METHODS:
            if method in item:
                yield method, path, item[method]


def plain(path: str) -> str:
    """A path without the names of its parameters: they differ between Django and OpenAPI."""
    return re.sub(r"\{[^}]*\}|<[^>]*>", "{}", path)


def routes(patterns, prefix: str = "/") -> Iterator[str]:
    for pattern in patterns:
        if isinstance(pattern, URLResolver):
            yield from routes(pattern.url_patterns, prefix + str(pattern.pattern))
        elif isinstance(pattern, URLPattern):
            yield plain(prefix + str(pattern.pattern))


def test_every_mounted_route_is_documented_and_no_other(db):
    mounted = {path for path in routes(get_resolver().url_patterns) if path.startswith(("/v1/", "/api/"))}
    documented = {plain(path) for load in SCHEMAS.values() for path in load()["paths"]}

    assert mounted - UNDOCUMENTED == documented


def test_every_operation_says_what_it_does_and_answers(schema):
    seen = set()
    for method, path, operation in operations(schema):
        where = f"{method.upper()} {path}"
        assert operation.get("summary"), where
        assert operation.get("tags"), where
        assert operation["operationId"] not in seen, where
        seen.add(operation["operationId"])
        successes = {status: r for status, r in operation["responses"].items() if int(status) < 400}
        assert successes, where
        for status, response in successes.items():
            if int(status) >= 300 or status == "204":
                assert response["description"], where
                continue
            assert response["content"], where
            for media in response["content"].values():
                assert media["schema"] not in ({}, {"type": "object"}), where
    assert len(seen) >= 6


def test_every_operation_documents_its_errors_as_problems(schema):
    for method, path, operation in operations(schema):
        where = f"{method.upper()} {path}"
        errors = {int(status): r for status, r in operation["responses"].items() if int(status) >= 400}
        expected = {400, 401, 413, 415, 422, 429, 503}
        if plain(path) not in PUBLIC or method != "get":
            expected |= {403}
        if plain(path) == "/v1/receipts/verify":
            expected -= {403}
        if "{" in path and not (method == "put" and "artifacts" in path):
            expected |= {404}
        assert expected <= set(errors), (where, expected - set(errors))
        assert 500 not in errors, where
        for response in errors.values():
            assert list(response["content"]) == [PROBLEM_JSON], where
            assert response["content"][PROBLEM_JSON]["schema"]["$ref"].endswith("/Problem"), where


def test_every_parameter_and_body_is_typed(schema):
    for method, path, operation in operations(schema):
        where = f"{method.upper()} {path}"
        named = {p["name"] for p in operation.get("parameters", []) if p["in"] == "path"}
        assert named == set(re.findall(r"\{([^}]*)\}", path)), where
        for parameter in operation.get("parameters", []):
            assert parameter["schema"], where
        for media in operation.get("requestBody", {}).get("content", {}).values():
            assert media["schema"], where


def test_every_reference_resolves(schema):
    text = orjson.dumps(schema).decode()
    references = set(re.findall(r'"\$ref":"#/components/schemas/([^"]+)"', text))

    assert references <= set(schema["components"]["schemas"])
    assert "Problem" in references


def test_who_may_call_is_part_of_the_document(schema):
    for method, path, operation in operations(schema):
        security = operation.get("security", [])
        if plain(path) in PUBLIC and (method == "get" or "verify" in path):
            assert security in ([], [{}]) or {} in security, f"{method.upper()} {path}"
        else:
            assert security, f"{method.upper()} {path}"


def test_an_unknown_address_and_a_wrong_method_are_problems_too(db):
    for path, status, code in (
        ("/v1/nothing", 404, "http.not_found"),
        ("/api/nothing", 404, "http.not_found"),
        ("/v1/receipts/verify", 405, "http.method_not_allowed"),
        ("/v1/jobs/batch", 405, "http.method_not_allowed"),
    ):
        response = Client().get(path)
        problem = orjson.loads(response.content)
        assert (response.status_code, problem["code"], problem["status"]) == (status, code, status)
        assert response["Content-Type"] == PROBLEM_JSON
        assert problem["instance"] == path
        if status == 405:
            assert "POST" in response["Allow"]


def test_no_two_shapes_share_a_name():
    """They would be one component of the document, and it would be wrong for one of them."""
    from collections import Counter

    from ninja import Schema

    def shapes(base):
        for shape in base.__subclasses__():
            yield shape
            yield from shapes(shape)

    ours = {shape for shape in shapes(Schema) if shape.__module__.startswith(("apps.", "aitbc."))}
    # Ninja makes two classes of each ModelSchema, one of them the other's parent.
    names = Counter(name for _, name in {(shape.__module__, shape.__name__) for shape in ours})

    assert len(ours) > 50
    assert [name for name, count in names.items() if count > 1] == []
