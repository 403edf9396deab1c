"""`/v1/withdrawals`: money to an address on a chain."""

from typing import Any
from uuid import UUID

from django.conf import settings
from django.http import HttpRequest
from ninja import Query, Router

from aitbc.core import money
from aitbc.core.auth import ApiKey, caller
from aitbc.core.errors import Conflict, Invalid
from aitbc.core.idempotency import idempotent
from aitbc.core.schema import cursor_parameter, errors, list_of
from apps.trading.api.schemas import WithdrawalIn, WithdrawalOut
from apps.trading.selectors import chain as selectors
from apps.trading.services import withdrawals

router = Router(tags=["money"])
read, write = ApiKey("money:read"), ApiKey("money:write")


@router.post("", auth=write, response={201: WithdrawalOut} | errors(403, 409), summary="Withdraw")
@idempotent("withdrawals.create")
def create_withdrawal(request: HttpRequest, body: WithdrawalIn) -> tuple[int, dict[str, Any]]:
    """Holds the amount, and sends it once the address has been known long enough. 409
    `payment.insufficient_funds`, or `withdrawal.limit` above what may leave within 24 hours."""
    if body.asset != "AIT":
        raise Conflict("withdrawal.not_withdrawable", f"{body.asset} is spent here, and never leaves")
    if body.chain not in (None, settings.CHAIN_NETWORK):
        raise Invalid(
            "withdrawal.unsupported",
            f"withdrawals are on {settings.CHAIN_NETWORK}",
            errors=[{"loc": ["body", "chain"], "msg": "not supported"}],
        )
    amount = money.units(body.amount, 18)
    if amount == 0:
        raise Invalid("money.amount", "withdraw more than nothing")
    item = withdrawals.withdraw(user=caller(request).user_id, address=body.address, amount=amount)
    return 201, selectors.withdrawal_document(item)


@router.get(
    "", auth=read, response={200: list_of(WithdrawalOut)} | errors(403), summary="Your withdrawals, newest first"
)
def list_withdrawals(
    request: HttpRequest, cursor: str | None = cursor_parameter(), limit: int = Query(50, ge=1, le=200)
) -> dict[str, Any]:
    return selectors.withdrawals_of(user=caller(request).user_id, cursor=cursor, limit=limit)


@router.get(
    "/{uuid:withdrawal_id}", auth=read, response={200: WithdrawalOut} | errors(403, 404), summary="A withdrawal"
)
def get_withdrawal(request: HttpRequest, withdrawal_id: UUID) -> dict[str, Any]:
    return selectors.withdrawal(user=caller(request).user_id, withdrawal=withdrawal_id)


@router.post(
    "/{uuid:withdrawal_id}/cancel",
    auth=write,
    response={200: WithdrawalOut} | errors(403, 404, 409),
    summary="Cancel a withdrawal that still waits",
)
def cancel_withdrawal(request: HttpRequest, withdrawal_id: UUID) -> dict[str, Any]:
    item = withdrawals.cancel(user=caller(request).user_id, withdrawal=withdrawal_id)
    return selectors.withdrawal_document(item)
