"""`/v1/accounts`: balances and entries of the caller."""

from typing import Any

from django.http import HttpRequest
from ninja import Query, Router

from aitbc.core.auth import ApiKey, caller
from aitbc.core.schema import cursor_parameter, errors, list_of
from apps.trading.api.schemas import BalanceOut, EntryOut
from apps.trading.selectors import balances

router = Router(tags=["money"], auth=ApiKey("money:read"))


@router.get("/accounts", response={200: list_of(BalanceOut)} | errors(403), summary="Your balances")
def list_balances(request: HttpRequest) -> dict[str, Any]:
    """`available` can be spent, `held` is in escrow, `maturing` was earned and is in its dispute window."""
    return {"items": balances.of_user(caller(request).user_id), "next": None}


@router.get(
    "/accounts/{asset}/entries",
    response={200: list_of(EntryOut)} | errors(403, 404),
    summary="Ledger entries, newest first",
)
def list_entries(
    request: HttpRequest, asset: str, cursor: str | None = cursor_parameter(), limit: int = Query(50, ge=1, le=200)
) -> dict[str, Any]:
    return balances.entries(user=caller(request).user_id, asset=asset, cursor=cursor, limit=limit)
