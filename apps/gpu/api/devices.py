"""`/v1/devices` and `/v1/gpu`: what devices measured, what fits them, and whether the fleet is well."""

from datetime import timedelta
from typing import Any
from uuid import UUID

from django.http import HttpRequest, HttpResponse
from ninja import Query, Router, Schema
from pydantic import AwareDatetime

from aitbc.accounts.models import Role
from aitbc.core import clock
from aitbc.core.auth import PartyKey, caller
from aitbc.core.idempotency import json_response
from aitbc.core.schema import errors
from apps.trading.services.escrow import call

router = Router(tags=["devices"], auth=PartyKey("jobs:read"))


class TelemetryOut(Schema):
    device: UUID
    step: int
    items: list[dict[str, Any]]


@router.get(
    "/devices/{uuid:device_id}/telemetry", response={200: TelemetryOut} | errors(403, 404), summary="A device's history"
)
def get_telemetry(
    request: HttpRequest,
    device_id: UUID,
    from_: AwareDatetime | None = Query(None, alias="from"),
    to: AwareDatetime | None = None,
    step: int = Query(300, ge=0, le=31_536_000, description="Seconds of a window; 0: the samples themselves."),
) -> HttpResponse:
    """The last 24 hours unless asked otherwise, oldest first. For the device's owner, for operators, and for
    a client while the device is let to him; public it is not: the load of a card tells what its client does."""
    me, end = caller(request), to or clock.database_now()
    asker = None if me.role == Role.OPERATOR else me.user_id
    start = from_ or end - timedelta(days=1)
    return json_response(call("gpu_device_telemetry", asker, device_id, start, end, step))
