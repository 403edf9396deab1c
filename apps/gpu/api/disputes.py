"""`/v1/disputes`: evidence, re-execution and appeals of a disputed payment."""

from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from django.http import HttpRequest, HttpResponse
from ninja import Router
from pydantic import Field

from aitbc.core.auth import ApiKey, caller
from aitbc.core.idempotency import idempotent, json_response
from aitbc.core.schema import Money, Strict, errors, shape
from apps.gpu.api.schemas import Sha256
from apps.gpu.services.reexecution import TOLERANCES
from apps.trading.services.escrow import call

router = Router(tags=["money"], auth=ApiKey("money:write"))
ONE = "/{uuid:payment_id}"
Note = Annotated[str, Field(max_length=300, pattern=r"^[^\x00]*$")]
What = dict[str, Any]
DisputeOut = shape(
    "DisputeDetails", payment=UUID, job=UUID, state=str, due_at=datetime | None, claimed=Money, reason=str,
    verdict=str | None, operator_because=str | None, runs=list[What], evidence=list[What],
)  # fmt: skip
CHANGED: dict[Any, Any] = {200: DisputeOut} | errors(403, 404, 409)


class EvidenceIn(Strict):
    artifact: Sha256
    note: Note = ""


class ReasonIn(Strict):
    reason: Annotated[Note, Field(min_length=1)]


@router.get(ONE, auth=ApiKey("money:read"), response=CHANGED, summary="A dispute, for both parties")
def get_dispute(request: HttpRequest, payment_id: UUID) -> HttpResponse:
    return json_response(call("dispute_shown", caller(request).user_id, payment_id))


@router.post(ONE + "/reexecution", response=CHANGED, summary="Have disputed work done again")
@idempotent("disputes.reexecution")
def reexecute(request: HttpRequest, payment_id: UUID) -> tuple[int, str]:
    """By the client, who so agrees that another miner sees his input, and deposits what the job had cost."""
    return 200, call("reexecution_open", caller(request).user_id, payment_id, TOLERANCES)


@router.post(ONE + "/evidence", response=CHANGED, summary="Show an artifact to the other party")
@idempotent("disputes.evidence")
def attach(request: HttpRequest, payment_id: UUID, body: EvidenceIn) -> tuple[int, str]:
    return 200, call("dispute_attach", caller(request).user_id, payment_id, body.artifact, body.note)


@router.post(ONE + "/appeal", response=CHANGED, summary="Appeal a verdict within its window")
@idempotent("disputes.appeal")
def appeal(request: HttpRequest, payment_id: UUID, body: ReasonIn) -> tuple[int, str]:
    return 200, call("reexecution_appeal", caller(request).user_id, payment_id, body.reason)
