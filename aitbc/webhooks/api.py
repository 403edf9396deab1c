"""`/v1/webhooks`: have it told what happened to one's jobs and money."""

import secrets
from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

import orjson
from django.db import transaction
from django.http import HttpRequest, HttpResponse
from ninja import ModelSchema, Query, Router
from pydantic import AwareDatetime, Field

from aitbc.core.auth import ApiKey, caller
from aitbc.core.idempotency import idempotent, json_response
from aitbc.core.schema import Strict, errors, list_of
from aitbc.webhooks import guard
from aitbc.webhooks.endpoints import ask, require_events, with_secret
from aitbc.webhooks.models import Delivery, Endpoint

router = Router(tags=["webhooks"])
read, write = ApiKey("webhooks:read"), ApiKey("webhooks:write")
problems = errors(403, 404, 409)
ONE, AGAIN = "/{uuid:webhook_id}", "/{uuid:webhook_id}/deliveries/{uuid:event}/replay"
Url = Annotated[str, Field(max_length=500, pattern=guard.URL)]
DAY = 86_400
Overlap = Annotated[int, Field(ge=0, le=604_800)]
Events = Annotated[list[str], Field(max_length=50, description="empty: all that there are and will be")]


class WebhookIn(Strict):
    url: Url
    events: Events = []


class WebhookChange(Strict):
    url: Url | None = None
    events: Events | None = None
    enabled: bool | None = None


class WebhookOut(ModelSchema):
    """`secret` is shown when it is made, and only then."""

    secret: str | None = None

    class Meta:
        model = Endpoint
        exclude = ("owner", "nonce", "previous_nonce")


class DeliveryOut(ModelSchema):
    """`id` is the event's, and the header `webhook-id` of every attempt."""

    id: UUID
    type: str
    due_at: datetime | None

    class Meta:
        model = Delivery
        fields = ("state", "attempts", "created_at", "attempted_at", "status", "error")


@router.post("", auth=write, response={201: WebhookOut} | errors(403, 409), summary="Register a webhook")
@idempotent("webhooks.create", with_secret)
def create_webhook(request: HttpRequest, body: WebhookIn) -> tuple[int, str]:
    """409 `webhook.too_many` above 20 of one user."""
    require_events(caller(request), body.events)
    return 201, ask("create", request, body.url, body.events, secrets.token_bytes(16))


@router.get("", auth=read, response={200: list_of(WebhookOut)} | errors(403), summary="Your webhooks")
def list_webhooks(request: HttpRequest) -> HttpResponse:
    return json_response(ask("list", request))


@router.get(ONE, auth=read, response={200: WebhookOut} | problems, summary="A webhook")
def get_webhook(request: HttpRequest, webhook_id: UUID) -> HttpResponse:
    return json_response(ask("get", request, webhook_id))


@router.patch(ONE, auth=write, response={200: WebhookOut} | problems, summary="Change a webhook")
@transaction.atomic
def change_webhook(request: HttpRequest, webhook_id: UUID, body: WebhookChange) -> HttpResponse:
    answer = ask("change", request, webhook_id, body.url, body.events, body.enabled)
    require_events(caller(request), orjson.loads(answer)["events"])
    return json_response(answer)


@router.delete(ONE, auth=write, response={200: WebhookOut} | problems, summary="Remove it and its deliveries")
def delete_webhook(request: HttpRequest, webhook_id: UUID) -> HttpResponse:
    return json_response(ask("delete", request, webhook_id))


@router.post(ONE + "/rotate", auth=write, response={200: WebhookOut} | problems, summary="A new secret")
@idempotent("webhooks.rotate", with_secret)
def rotate_secret(request: HttpRequest, webhook_id: UUID, overlap_seconds: Overlap = 86_400) -> tuple[int, str]:
    """For `overlap_seconds` the old one signs too."""
    return 200, ask("rotate", request, webhook_id, secrets.token_bytes(16), overlap_seconds)


@router.post(ONE + "/test", auth=write, response={201: DeliveryOut} | problems, summary="Send a test event")
@idempotent("webhooks.test")
def test_webhook(request: HttpRequest, webhook_id: UUID) -> tuple[int, str]:
    return 201, ask("test", request, webhook_id)


@router.get(ONE + "/deliveries", auth=read, response={200: list_of(DeliveryOut)} | problems, summary="Deliveries")
def list_deliveries(
    request: HttpRequest,
    webhook_id: UUID,
    state: Literal["pending", "delivered", "dead"] | None = None,
    type: str | None = Query(None, max_length=60, pattern=r"^[a-z_.]+$"),
    cursor: UUID | None = None,
    limit: int = Query(50, ge=1, le=200),
) -> HttpResponse:
    return json_response(ask("deliveries", request, webhook_id, state, type, cursor, limit))


@router.post(ONE + "/replay", auth=write, response={202: dict[str, int]} | problems, summary="Send all since again")
@idempotent("webhooks.replay_since")
def replay_since(
    request: HttpRequest, webhook_id: UUID, since: AwareDatetime, delivered: bool = False
) -> tuple[int, str]:
    """Dead deliveries of events since then, and if asked for the `delivered` ones too."""
    return 202, ask("replay", request, webhook_id, None, since, delivered)


@router.post(
    ONE + "/deliveries/{uuid:event}/replay", auth=write, response={202: dict[str, int]} | problems, summary="Send again"
)
@idempotent("webhooks.replay")
def replay_delivery(request: HttpRequest, webhook_id: UUID, event: UUID) -> tuple[int, str]:
    """A delivered or a dead one; 0 while it is still being tried."""
    return 202, ask("replay", request, webhook_id, event, None, True)
