"""`/v1/payouts`: earnings to an address of one's own, and the proofs to claim them."""

from typing import Any

from django.conf import settings
from django.http import HttpRequest
from ninja import Query, Router

from aitbc.core.auth import ApiKey, caller
from aitbc.core.schema import cursor_parameter, errors, list_of
from apps.trading.api.schemas import PayoutOut, PayoutTargetIn, PayoutTargetOut
from apps.trading.models import PayoutTarget
from apps.trading.selectors import chain as selectors
from apps.trading.services import payouts

router = Router(tags=["money"])


def _show(target: PayoutTarget | None) -> dict[str, Any]:
    return {
        "address": target.address if target else None,
        "chain": settings.CHAIN_NETWORK,
        "set_at": target.set_at if target else None,
    }


@router.get(
    "/target",
    auth=ApiKey("money:read"),
    response={200: PayoutTargetOut} | errors(403),
    summary="Where your earnings go",
)
def get_target(request: HttpRequest) -> dict[str, Any]:
    return _show(PayoutTarget.objects.filter(user_id=caller(request).user_id).first())


@router.put(
    "/target",
    auth=ApiKey("money:write"),
    response={200: PayoutTargetOut} | errors(403),
    summary="Set where your earnings go",
)
def put_target(request: HttpRequest, body: PayoutTargetIn) -> dict[str, Any]:
    """null keeps earnings in the ledger."""
    return _show(payouts.set_target(user=caller(request).user_id, address=body.address))


@router.get("", auth=ApiKey("money:read"), response={200: list_of(PayoutOut)} | errors(403), summary="Your payouts")
def list_payouts(
    request: HttpRequest, cursor: str | None = cursor_parameter(), limit: int = Query(50, ge=1, le=200)
) -> dict[str, Any]:
    """`claim` holds the arguments of the contract's claim once the batch is final."""
    return selectors.payouts_of(user=caller(request).user_id, cursor=cursor, limit=limit)
