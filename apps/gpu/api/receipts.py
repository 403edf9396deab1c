"""`/v1/receipts`: public verification."""

from typing import Any

from django.conf import settings
from django.http import HttpRequest
from ninja import Body, Router

from aitbc.core.schema import errors
from apps.gpu import receipts, verification
from apps.gpu.api.schemas import VerdictOut

router = Router(tags=["receipts"])


@router.post("/receipts/verify", auth=None, response={200: VerdictOut} | errors(503), summary="Verify a receipt")
def verify_receipt(request: HttpRequest, body: dict[str, Any] = Body(...)) -> dict[str, Any]:
    """Both signatures, the price and the anchor; the reason names the first check that fails."""
    verdict = verification.verify(body, platform_addresses=receipts.network_addresses(), chain_id=settings.CHAIN_ID)
    return verdict.as_json()
