"""`/v1/payments`: the escrow of a job, for its client and its provider."""

from typing import Any
from uuid import UUID

from django.http import HttpRequest
from ninja import Router

from aitbc.core.auth import ApiKey, caller
from aitbc.core.schema import errors
from apps.trading.api.schemas import PaymentOut
from apps.trading.selectors import payments

router = Router(tags=["money"], auth=ApiKey("money:read"))


@router.get("/payments/{uuid:payment_id}", response={200: PaymentOut} | errors(403, 404), summary="A payment")
def get_payment(request: HttpRequest, payment_id: UUID) -> dict[str, Any]:
    return payments.document(user=caller(request).user_id, payment=payment_id)


@router.get(
    "/jobs/{uuid:job_id}/payment", response={200: PaymentOut} | errors(403, 404), summary="A job's payment"
)
def get_job_payment(request: HttpRequest, job_id: UUID) -> dict[str, Any]:
    return payments.document(user=caller(request).user_id, job=job_id)
