"""`/v1/marketplace/searches`: filters that people keep, and offers that came to match them."""

from typing import Annotated
from uuid import UUID

from django.http import HttpRequest, HttpResponse
from ninja import Query, Router

from aitbc.core.auth import ApiKey, caller
from aitbc.core.idempotency import idempotent, json_response
from aitbc.core.schema import errors, list_of
from apps.marketplace.api.schemas import MatchOut, SearchIn, SearchOut
from apps.marketplace.services import searches
from apps.trading.services.escrow import call

router = Router(tags=["marketplace"], auth=ApiKey("jobs:read"))
Cursor = Annotated[int | None, Query(ge=1, lt=2**63)]
Limit = Annotated[int, Query(ge=1, le=200)]
WRITE, ONE = ApiKey("jobs:write"), "/{uuid:search_id}"


@router.post("", auth=WRITE, response={201: SearchOut} | errors(403, 409), summary="Keep a search")
@idempotent("searches.create")
def create_search(request: HttpRequest, body: SearchIn) -> tuple[int, str]:
    """At most 20 of one user. With `alert` you are told of offers that newly match, each once."""
    return 201, searches.save(owner=caller(request).user_id, **body.dict())


@router.get("", response={200: list_of(SearchOut)} | errors(403), summary="Your searches")
def list_searches(request: HttpRequest) -> HttpResponse:
    return json_response(call("marketplace_searches", caller(request).user_id))


@router.delete(ONE, auth=WRITE, response={200: SearchOut} | errors(403, 404), summary="Forget a search")
def delete_search(request: HttpRequest, search_id: UUID) -> HttpResponse:
    return json_response(call("marketplace_search_delete", caller(request).user_id, search_id))


@router.get(ONE + "/matches", response={200: list_of(MatchOut, int)} | errors(403, 404), summary="Newest matches first")
def list_matches(request: HttpRequest, search_id: UUID, cursor: Cursor = None, limit: Limit = 50) -> HttpResponse:
    return json_response(call("marketplace_search_matches", caller(request).user_id, search_id, cursor, limit))
