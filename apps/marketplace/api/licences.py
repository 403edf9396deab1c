"""`/v1/marketplace/assets` and `/licences`: models and data, the right to use them, and who earns by it."""

from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

import orjson
from django.http import HttpRequest, HttpResponse
from ninja import Query, Router
from pydantic import Field

from aitbc.core.auth import ApiKey, PartyKey, caller
from aitbc.core.errors import Invalid
from aitbc.core.idempotency import idempotent, json_response
from aitbc.core.ids import uuid7
from aitbc.core.schema import Money, MoneyIn, PageIn, Strict, Text, errors, list_of, shape
from apps.gpu.api.disputes import ReasonIn, What
from apps.gpu.api.schemas import Name, Sha256
from apps.gpu.runtimes import misfits
from apps.trading.services.escrow import call

router = Router(tags=["marketplace"])
sell, buy = PartyKey("offers:write"), ApiKey("money:write")
Word = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,39}$")]
AssetOut = shape(
    "AssetOut", id=UUID, owner=UUID, artifact=str, name=str, kind=str, listed=bool, verification=What | None,
    plans=list[What], royalties=list[What],
)  # fmt: skip
LicenceOut = shape(
    "LicenceOut", id=UUID, asset=UUID, artifact=str, type=str, terms=str, expires_at=datetime | None,
    revoked_at=datetime | None, valid=bool,
)  # fmt: skip
BundleOut = shape("BundleOut", id=UUID, name=str, price=Money, plans=list[UUID])
SaleOut = shape("SaleOut", id=UUID, price=Money, fee=Money, shares=list[What], licences=list[What])
CHANGED: dict[Any, Any] = {200: AssetOut} | errors(403, 404, 409)
REVOKED: dict[Any, Any] = {200: LicenceOut} | errors(403, 404)


class PlanIn(Strict):
    type: Literal["commercial", "research", "educational", "custom"]
    terms: Text = ""
    rights: Annotated[list[Word], Field(max_length=20)] = Field([], description="Custom: the purposes it allows.")
    days: Annotated[int, Field(ge=1, le=36_500)] | None = None
    price: MoneyIn


class RoyaltyIn(Strict):
    tier: Word
    payee: UUID
    bps: Annotated[int, Field(ge=1, le=10_000)]


class ReferenceIn(Strict):
    """What the model computes: an input of onnx.infer without its model, and the output it must give."""

    input: What
    expected: What
    tolerance: Annotated[float, Field(ge=0, le=1)] = 1e-3


class AssetIn(Strict):
    artifact: Sha256
    name: Name
    kind: Literal["model", "dataset"]
    plans: Annotated[list[PlanIn], Field(min_length=1, max_length=20)]
    royalties: Annotated[list[RoyaltyIn], Field(max_length=20)] = []
    reference: ReferenceIn | None = None


class BundleIn(Strict):
    name: Name
    price: MoneyIn
    plans: Annotated[list[UUID], Field(min_length=2, max_length=20)]


class SaleIn(Strict):
    id: UUID = Field(description="The transaction's, made by you: it pays once, however often it comes.")
    item: UUID = Field(description="A plan or a bundle.")


@router.post("/assets", auth=sell, response={201: AssetOut} | errors(403, 404), summary="Publish a model or data")
@idempotent("assets.publish")
def publish(request: HttpRequest, body: AssetIn) -> tuple[int, str]:
    """Bytes that you uploaded. Licensees' jobs may name them; nobody gets to download them."""
    said = body.dict() | {"plans": [plan.dict() | {"units": str(plan.price.units)} for plan in body.plans]}
    if (known := body.reference) and misfits("onnx.infer", "input", known.input | {"model": body.artifact}):
        raise Invalid.field("reference", "no input of onnx.infer without its model")
    return 201, call("asset_publish", caller(request).user_id, uuid7(), orjson.dumps(said).decode())


@router.get("/assets", auth=None, response={200: list_of(AssetOut, UUID)} | errors(), summary="Models and data")
def list_assets(request: HttpRequest, page: Query[PageIn]) -> HttpResponse:
    return json_response(call("assets_listed", page.cursor, page.limit))


@router.delete("/assets/{uuid:asset_id}", auth=sell, response=CHANGED, summary="Withdraw an asset from sale")
def withdraw(request: HttpRequest, asset_id: UUID) -> HttpResponse:
    return json_response(call("asset_withdraw", caller(request).user_id, asset_id))


@router.post("/assets/{uuid:asset_id}/checks", auth=sell, response=CHANGED, summary="Verify a model by running it")
@idempotent("assets.check")
def check(request: HttpRequest, asset_id: UUID) -> tuple[int, str]:
    """On a miner of somebody else, on the reference input, at your cost. The badge follows the last check."""
    return 200, call("asset_check", caller(request).user_id, asset_id)


@router.post("/bundles", auth=sell, response={201: BundleOut} | errors(403), summary="Sell several plans as one")
@idempotent("bundles.publish")
def bundle(request: HttpRequest, body: BundleIn) -> tuple[int, str]:
    return 201, call("bundle_publish", caller(request).user_id, uuid7(), body.name, body.price.units, body.plans)


@router.post("/licences", auth=buy, response={201: SaleOut} | errors(403, 404, 409), summary="Buy a licence")
@idempotent("licences.buy")
def buy_licence(request: HttpRequest, body: SaleIn) -> tuple[int, str]:
    """Fee, royalties and the owner's share move at once, to the last unit of the price."""
    return 201, call("licence_buy", caller(request).user_id, body.id, body.item)


@router.get("/licences", auth=buy, response={200: list_of(LicenceOut, UUID)} | errors(403), summary="Bought and sold")
def list_licences(request: HttpRequest, page: Query[PageIn]) -> HttpResponse:
    return json_response(call("licences_of", caller(request).user_id, page.cursor, page.limit))


@router.post("/licences/{uuid:licence_id}/revoke", auth=sell, response=REVOKED, summary="Revoke a licence")
@idempotent("licences.revoke")
def revoke(request: HttpRequest, licence_id: UUID, body: ReasonIn) -> tuple[int, str]:
    """At once: what its holder has in the queue for these bytes is canceled and refunded."""
    return 200, call("licence_revoke", caller(request).user_id, licence_id, body.reason)
