"""`/v1/payments`: the escrow of a job, for its client and its provider."""

from uuid import UUID

from django.http import HttpRequest, HttpResponse
from ninja import Router

from aitbc.core.auth import ApiKey, caller
from aitbc.core.idempotency import idempotent, json_response
from aitbc.core.schema import errors
from apps.trading.api.schemas import PaymentIn, PaymentOut
from apps.trading.services import escrow

router = Router(tags=["money"], auth=ApiKey("money:read"))


@router.get("/payments/{uuid:payment_id}", response={200: PaymentOut} | errors(403, 404), summary="A payment")
def get_payment(request: HttpRequest, payment_id: UUID) -> HttpResponse:
    return json_response(escrow.call("payment_shown", caller(request).user_id, payment_id, None))


@router.get("/jobs/{uuid:job_id}/payment", response={200: PaymentOut} | errors(403, 404), summary="A job's payment")
def get_job_payment(request: HttpRequest, job_id: UUID) -> HttpResponse:
    return json_response(escrow.call("payment_shown", caller(request).user_id, None, job_id))


@router.post(
    "/payments/{uuid:payment_id}/{action}",
    auth=ApiKey("money:write"),
    response={200: PaymentOut} | errors(403, 404, 409),
    summary="Release, refund or dispute a payment",
)
@idempotent("payments.act")
def act_on_payment(request: HttpRequest, payment_id: UUID, action: escrow.Action, body: PaymentIn) -> tuple[int, str]:
    """Once the job is over. Its client releases the earning before the window ends, or disputes it within
    the window: nothing matures until an operator has decided. A refund is the client's claim, which opens
    a dispute, or the provider's gift, which returns at once."""
    amount = body.amount.units if body.amount else None
    user, job = caller(request).user_id, body.job_id
    return 200, escrow.act(action, user=user, payment=payment_id, job=job, reason=body.reason, amount=amount)
