"""`/v1/devices` and `/v1/gpu`: what devices measured, what fits them, and whether the fleet is well."""

from datetime import datetime, timedelta
from typing import Annotated, Any, Literal
from uuid import UUID

from django.http import HttpRequest, HttpResponse
from ninja import Query, Router, Schema
from pydantic import AwareDatetime, Field

from aitbc.accounts.models import Role
from aitbc.core import clock
from aitbc.core.auth import PartyKey, caller
from aitbc.core.idempotency import json_response
from aitbc.core.schema import Strict, errors
from apps.gpu.services import health
from apps.trading.services.escrow import call

router = Router(tags=["devices"], auth=PartyKey("jobs:read"))


class FitIn(Strict):
    parameters_b: Annotated[float, Field(gt=0, le=100_000)]
    dtype: Literal["fp32", "bf16", "fp16", "int8", "q5", "int4"] = "bf16"
    context: Annotated[int, Field(ge=1, le=10_000_000)]
    batch: Annotated[int, Field(ge=1, le=100_000)] = 1
    layers: Annotated[int, Field(ge=1, le=10_000)] | None = None
    width: Annotated[int, Field(ge=1, le=10**6)] | None = Field(None, description="Key-value heads x their size.")


class FitOut(Schema):
    fits: bool
    reason: str
    free_mb: int
    measured_at: datetime | None = Field(description="Of the memory in use; none: the whole memory was counted.")
    best: str | None = Field(description="The most exact type that fits.")
    largest_batch: int
    types: dict[str, dict[str, Any]]


class CapacityOut(Schema):
    as_of: datetime
    kinds: list[dict[str, Any]]
    classes: list[dict[str, Any]]


class HealthOut(Schema):
    status: Literal["ok", "degraded", "unavailable"]
    faults: list[str]
    devices: list[dict[str, Any]]
    kinds: dict[str, Any]
    probed_at: datetime | None
    probe: dict[str, Any] | None


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


@router.post("/devices/{uuid:device_id}/fit", response={200: FitOut} | errors(403, 404), summary="Does a model fit?")
def fit(request: HttpRequest, device_id: UUID, body: FitIn) -> HttpResponse:
    """A dense transformer against the memory that the last heartbeat left free; docs/fleet.md has the formula."""
    return json_response(call("gpu_fit", device_id, body.model_dump_json()))


@router.get("/gpu/capacity", response={200: CapacityOut} | errors(403), summary="How many slots are needed")
def get_capacity(request: HttpRequest) -> HttpResponse:
    """Queue, load and rates of each kind as recorded each minute, and the advice that the thresholds give."""
    return json_response(call("gpu_capacity", clock.database_now()))


@router.get("/gpu/health", response={200: HealthOut} | errors(403), summary="Are the GPUs well?")
def get_health(request: HttpRequest, deep: bool = False) -> HttpResponse:
    """The platform's own devices, and who runs which kind. `deep` runs a small job of every kind on the
    platform's own worker and compares its output; an answer holds for a minute."""
    return json_response(health.report(deep=deep))
