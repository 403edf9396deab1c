"""`/v1/deposits`: where to send tokens, and what arrived."""

from typing import Any

from django.conf import settings
from django.http import HttpRequest
from ninja import Query, Router

from aitbc.core.auth import ApiKey, caller
from aitbc.core.errors import Invalid
from aitbc.core.schema import cursor_parameter, errors, list_of
from apps.trading.api.schemas import DepositAddressOut, DepositOut
from apps.trading.selectors import chain as selectors
from apps.trading.services import deposits

router = Router(tags=["money"], auth=ApiKey("money:read"))


@router.get("/deposits/address", response={200: DepositAddressOut} | errors(403, 503), summary="Your deposit address")
def get_deposit_address(
    request: HttpRequest,
    asset: str = Query("AIT", max_length=12, pattern=r"^[A-Z]+$"),
    chain: str | None = Query(None, max_length=20, pattern=r"^[a-z-]+$"),
) -> dict[str, str]:
    """Keyless and always the same; what arrives is credited once its block is final."""
    network = settings.CHAIN_NETWORK
    if asset != "AIT" or chain not in (None, network):
        field = "asset" if asset != "AIT" else "chain"
        raise Invalid(
            "deposit.unsupported",
            f"deposits are in AIT on {network}",
            errors=[{"loc": ["query", field], "msg": "not supported"}],
        )
    address = deposits.deposit_address(user=caller(request).user_id)
    return {"asset": asset, "chain": network, "address": address}


@router.get(
    "/deposits", response={200: list_of(DepositOut)} | errors(403), summary="Your credited deposits, newest first"
)
def list_deposits(
    request: HttpRequest, cursor: str | None = cursor_parameter(), limit: int = Query(50, ge=1, le=200)
) -> dict[str, Any]:
    return selectors.deposits_of(user=caller(request).user_id, cursor=cursor, limit=limit)
