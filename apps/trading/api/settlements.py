"""`/v1/settlements` and `/v1/reserves`: what was anchored, and whether the money is there."""

from typing import Any
from uuid import UUID

from django.http import HttpRequest
from ninja import Query, Router

from aitbc.core.auth import ApiKey, caller
from aitbc.core.schema import cursor_parameter, errors, list_of
from apps.trading.api.schemas import LiabilitiesOut, LiabilityProofOut, ReservesOut, SettlementOut
from apps.trading.selectors import chain as selectors

router = Router(tags=["settlement"])
reader = ApiKey("money:read")


@router.get(
    "/settlements", auth=reader, response={200: list_of(SettlementOut)} | errors(403), summary="Batches, newest first"
)
def list_settlements(
    request: HttpRequest, cursor: str | None = cursor_parameter(), limit: int = Query(50, ge=1, le=200)
) -> dict[str, Any]:
    return selectors.settlements(cursor=cursor, limit=limit)


@router.get(
    "/settlements/{uuid:batch_id}",
    auth=reader,
    response={200: SettlementOut} | errors(403, 404),
    summary="A settlement batch",
)
def get_settlement(request: HttpRequest, batch_id: UUID) -> dict[str, Any]:
    return selectors.settlement(batch_id)


@router.get("/reserves", auth=None, response={200: ReservesOut} | errors(404, 503), summary="Reserves, public")
def get_reserves(
    request: HttpRequest, asset: str = Query("AIT", max_length=12, pattern=r"^[A-Za-z0-9]+$")
) -> dict[str, Any]:
    """Compared at one final block; `pending` is what the ledger has not posted yet of it."""
    return selectors.reserves(asset=asset)


@router.get("/liabilities", auth=None, response={200: LiabilitiesOut} | errors(503), summary="Proof of liabilities")
def get_liabilities(request: HttpRequest) -> dict[str, Any]:
    """The root of the last tree of what is owed to users, beside the reserve at the same final block."""
    return selectors.liabilities()


@router.get(
    "/liabilities/proof",
    auth=reader,
    response={200: LiabilityProofOut} | errors(403, 404, 503),
    summary="Your place in the proof of liabilities",
)
def get_liability_proof(request: HttpRequest) -> dict[str, Any]:
    """Check it offline with `manage.py verify_liability FILE`."""
    return selectors.liability_proof(user=caller(request).user_id)
