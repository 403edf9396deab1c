"""`/v1/webhooks`: have it told what happened to one's jobs and money."""

import secrets
from typing import Annotated, Literal
from uuid import UUID

import orjson
from django.db import transaction
from django.http import HttpRequest, HttpResponse
from ninja import ModelSchema, Query, Router, Schema
from pydantic import AwareDatetime, Field

from aitbc.core.auth import ApiKey, caller
from aitbc.core.errors import Conflict, NotFound
from aitbc.core.idempotency import idempotent, json_response
from aitbc.core.schema import Strict, errors
from aitbc.webhooks.endpoints import ask, require_events, with_secret
from aitbc.webhooks.guard import check_url
from aitbc.webhooks.models import Delivery, Endpoint

router = Router(tags=["webhooks"])
read, write = ApiKey("webhooks:read"), ApiKey("webhooks:write")
ONE = "/{uuid:webhook_id}"
Url = Annotated[str, Field(max_length=500)]


class WebhookChange(Strict):
    """`events` empty: all that there are and will be."""

    url: Url | None = None
    events: list[str] | None = Field(None, max_length=50)
    enabled: bool | None = None


class WebhookIn(Strict):
    url: Url
    events: list[str] = Field([], max_length=50)


class WebhookOut(ModelSchema):
    """`secret` is shown when it is made, and only then."""

    secret: str | None = None

    class Meta:
        model = Endpoint
        exclude = ("owner", "nonce", "previous_nonce")


class WebhookList(Schema):
    items: list[WebhookOut]
    next: str | None


class DeliveryOut(ModelSchema):
    """`id` is the event's, and the header `webhook-id` of every attempt."""

    id: UUID
    type: str
    due_at: AwareDatetime | None

    class Meta:
        model = Delivery
        fields = ("state", "attempts", "created_at", "attempted_at", "status", "error")


class DeliveryList(Schema):
    items: list[DeliveryOut]
    next: str | None


class Replayed(Schema):
    replayed: int


@router.post("", auth=write, response={201: WebhookOut} | errors(403, 409), summary="Register a webhook")
@idempotent("webhooks.create", with_secret)
def create_webhook(request: HttpRequest, body: WebhookIn) -> tuple[int, str]:
    require_events(caller(request), body.events)
    owner, nonce = caller(request).user_id, secrets.token_bytes(16)
    try:
        return 201, ask("create", owner, check_url(body.url), body.events, nonce)
    except NotFound:
        raise Conflict("webhook.too_many", "a user has at most 20 webhooks") from None


@router.get("", auth=read, response={200: WebhookList} | errors(403), summary="Your webhooks")
def list_webhooks(request: HttpRequest) -> HttpResponse:
    return json_response(ask("list", caller(request).user_id))


@router.get(ONE, auth=read, response={200: WebhookOut} | errors(403, 404), summary="A webhook")
def get_webhook(request: HttpRequest, webhook_id: UUID) -> HttpResponse:
    return json_response(ask("get", caller(request).user_id, webhook_id))


@router.patch(ONE, auth=write, response={200: WebhookOut} | errors(403, 404), summary="Change a webhook")
@transaction.atomic
def change_webhook(request: HttpRequest, webhook_id: UUID, body: WebhookChange) -> HttpResponse:
    url = check_url(body.url) if body.url else None
    answer = ask("change", caller(request).user_id, webhook_id, url, body.events, body.enabled)
    require_events(caller(request), orjson.loads(answer)["events"])
    return json_response(answer)


@router.delete(ONE, auth=write, response={200: WebhookOut} | errors(403, 404), summary="Remove a webhook")
def delete_webhook(request: HttpRequest, webhook_id: UUID) -> HttpResponse:
    """And its deliveries with it."""
    return json_response(ask("delete", caller(request).user_id, webhook_id))


@router.post(
    f"{ONE}/rotate", auth=write, response={200: WebhookOut} | errors(403, 404, 409), summary="A new secret"
)
@idempotent("webhooks.rotate", with_secret)
def rotate_secret(
    request: HttpRequest, webhook_id: UUID, overlap_seconds: int = Query(86_400, ge=0, le=604_800)
) -> tuple[int, str]:
    """For `overlap_seconds` the old one signs too."""
    return 200, ask("rotate", caller(request).user_id, webhook_id, secrets.token_bytes(16), overlap_seconds)


@router.post(
    f"{ONE}/test",
    auth=write,
    response={201: DeliveryOut} | errors(403, 404, 409),
    summary="Send a test event",
)
@idempotent("webhooks.test")
def test_webhook(request: HttpRequest, webhook_id: UUID) -> tuple[int, str]:
    return 201, ask("test", caller(request).user_id, webhook_id)


@router.get(
    f"{ONE}/deliveries", auth=read, response={200: DeliveryList} | errors(403, 404), summary="Its deliveries"
)
def list_deliveries(
    request: HttpRequest,
    webhook_id: UUID,
    state: Literal["pending", "delivered", "dead"] | None = None,
    type: str | None = Query(None, max_length=60, pattern=r"^[a-z_.]+$"),
    cursor: UUID | None = None,
    limit: int = Query(50, ge=1, le=200),
) -> HttpResponse:
    return json_response(ask("deliveries", caller(request).user_id, webhook_id, state, type, cursor, limit))


@router.post(
    ONE + "/deliveries/{uuid:delivery_id}/replay",
    auth=write,
    response={202: Replayed} | errors(403, 404, 409),
    summary="Send again",
)
@idempotent("webhooks.replay")
def replay_delivery(request: HttpRequest, webhook_id: UUID, delivery_id: UUID) -> tuple[int, str]:
    """A delivered or a dead one; 0 while it is still being tried."""
    return 202, ask("replay", caller(request).user_id, webhook_id, delivery_id, None, True)


@router.post(
    f"{ONE}/replay", auth=write, response={202: Replayed} | errors(403, 404, 409), summary="Send again since"
)
@idempotent("webhooks.replay_since")
def replay_since(
    request: HttpRequest, webhook_id: UUID, since: AwareDatetime, delivered: bool = False
) -> tuple[int, str]:
    """Dead deliveries of events since then, and if asked for the `delivered` ones too."""
    return 202, ask("replay", caller(request).user_id, webhook_id, None, since, delivered)
