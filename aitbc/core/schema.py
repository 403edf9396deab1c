"""OpenAPI of both APIs: every operation also documents its errors as problem documents."""

from typing import Annotated, Any, Literal
from uuid import UUID

from drf_spectacular.extensions import OpenApiAuthenticationExtension
from drf_spectacular.openapi import AutoSchema
from drf_spectacular.plumbing import ResolvedComponent
from ninja import NinjaAPI, Query, Schema
from pydantic import ConfigDict, Field, create_model

from aitbc.core import money

PROBLEM_JSON = "application/problem+json"
Text = Annotated[str, Field(max_length=2000, pattern=r"^[^\x00]*$")]
Amount = Annotated[str, Field(pattern=r"^(0|[1-9][0-9]{0,19})(\.[0-9]{1,18})?$", examples=["1.25"])]


class Strict(Schema):
    """Input: a member we do not know is a mistake, not noise."""

    model_config = ConfigDict(extra="forbid")


class MoneyIn(Strict):
    amount: Amount
    asset: Literal["AIT"] = "AIT"

    @property
    def units(self) -> int:
        return money.units(self.amount, 18)


def list_of(item: type[Schema], cursor: Any = str) -> type[Schema]:
    """A page of a list; `next` is the cursor of the one after it."""
    fields: dict[str, Any] = {"items": (list[item], ...), "next": (cursor | None, ...)}  # type: ignore[valid-type]
    return create_model(item.__name__.removesuffix("Out") + "List", __base__=Schema, **fields)


def shape(title: str, /, *, base: type[Schema] = Schema, **fields: Any) -> Any:
    """An object with these members, all there."""
    return create_model(title, __base__=base, **{name: (kind, ...) for name, kind in fields.items()})  # type: ignore


class PageIn(Schema):
    cursor: UUID | None = None
    limit: Annotated[int, Field(ge=1, le=200)] = 50


def cursor_parameter() -> Any:
    """The `cursor` of a list: where the page before it ended."""
    return Query(None, max_length=200, pattern=r"^[^\x00]*$")  # type: ignore[type-arg]  # a function


class FieldError(Schema):
    loc: list[str]
    msg: str


class Problem(Schema):
    """RFC 9457 problem details; `code` is stable, `request_id` is what to quote."""

    type: str
    title: str
    status: int
    detail: str
    instance: str
    code: str
    request_id: str | None = None
    errors: list[FieldError] | None = None


class Money(Schema):
    """A decimal string and its asset, never a float."""

    amount: str
    asset: str = "AIT"


class MachineApi(NinjaAPI):
    """Ninja's schema with the media type that errors really have, and no error handlers but our own."""

    def set_default_exception_handlers(self) -> None:
        """Ninja's defaults are for narrower classes than ours, so they would win, in another shape."""

    def get_openapi_schema(self, **options: Any) -> Any:
        schema = super().get_openapi_schema(**options)
        for path in schema["paths"].values():
            for operation in path.values():
                for status, response in operation["responses"].items():
                    _name_media_type(int(status), response)
        return schema


def _name_media_type(status: int, response: dict[str, Any]) -> None:
    """Ninja calls every body JSON: errors are problems, and bytes are bytes."""
    body = response.get("content", {}).get("application/json")
    if body is not None and status >= 400:
        response["content"] = {PROBLEM_JSON: body}
    elif body is not None and body.get("schema", {}).get("format") == "binary":
        response["content"] = {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}


def errors(*statuses: int) -> dict[Any, Any]:
    """Ninja's `response=` entries of the problems a route documents. Some may come anywhere; 503 is the
    database or another store that is away for now, its `code` says which."""
    return {frozenset({400, 401, 413, 415, 422, 429, 503, *statuses}): Problem}


class ApiKeyScheme(OpenApiAuthenticationExtension):  # type: ignore[no-untyped-call]  # registers itself
    """How the people's API describes our keys."""

    target_class = "aitbc.core.auth.DrfApiKey"
    name = "apiKey"

    def get_security_definition(self, auto_schema: AutoSchema) -> dict[str, str]:
        return {"type": "http", "scheme": "bearer", "description": "An API key: ait_<prefix>_<secret>"}


class ProblemAutoSchema(AutoSchema):
    """drf-spectacular with our error responses on every operation."""

    def _get_response_bodies(self, direction: Literal["request", "response"] = "response") -> dict[str, Any]:
        bodies: dict[str, Any] = super()._get_response_bodies(direction)
        for described in (FieldError, Problem):
            self.registry.register_on_missing(_component(described))
        for status in ("400", "401", "403", "404", "409", "413", "415", "422", "429", "503"):
            bodies.setdefault(
                status,
                {
                    "description": "Problem details (RFC 9457)",
                    "content": {PROBLEM_JSON: {"schema": {"$ref": "#/components/schemas/Problem"}}},
                },
            )
        return bodies


def _component(schema: type[Schema]) -> Any:
    described = schema.model_json_schema(ref_template="#/components/schemas/{model}")
    described.pop("$defs", None)
    return ResolvedComponent(  # type: ignore[no-untyped-call]  # the library has no types here
        name=schema.__name__, type=ResolvedComponent.SCHEMA, schema=described, object=schema.__name__
    )
