"""`/v1/marketplace/offers`: what is for sale. Reading is public, writing is for the miner's side."""

from typing import Any
from uuid import UUID

from django.http import HttpRequest, HttpResponse
from ninja import Query, Router

from aitbc.core.auth import PartyKey, caller
from aitbc.core.idempotency import idempotent, json_response
from aitbc.core.schema import errors
from apps.marketplace.api.schemas import OfferIn, OfferList, OfferOut, OfferPatch, SearchIn
from apps.marketplace.selectors import offers as selectors
from apps.marketplace.selectors.offers import Filters
from apps.marketplace.services import offers as services
from apps.marketplace.services import timing
from apps.marketplace.services.offers import NewOffer, OfferChange

router = Router(tags=["marketplace"])
write = PartyKey("offers:write")
ONE = "/offers/{uuid:offer_id}"
CHANGED: dict[Any, Any] = {200: OfferOut} | errors(403, 404, 409)


@router.get("/offers", auth=None, response={200: OfferList} | errors(503), summary="Search offers")
def search_offers(request: HttpRequest, wanted: Query[SearchIn]) -> HttpResponse:
    """All filters given must hold. Equal rows keep one order, so pages neither skip nor repeat."""
    filters = Filters(**wanted.dict(exclude={"sort", "cursor", "limit", "count"}))
    with timing.measured("search"):
        page = selectors.search(
            filters=filters, sort=wanted.sort, cursor=wanted.cursor, limit=wanted.limit, count=wanted.count == "exact"
        )
    return json_response(page)


@router.post("/offers", auth=write, response={201: OfferOut} | errors(403, 404, 409), summary="List an offer")
@idempotent("offers.create")
def create_offer(request: HttpRequest, body: OfferIn) -> tuple[int, str]:
    """A device is in one listed offer at a time."""
    wanted = NewOffer(price=body.price.on_demand.amount, sla=_sla(body), **body.dict(exclude={"price", "sla"}))
    listed = services.list_offer(seller=caller(request), offer=wanted)
    return 201, selectors.offer_document(listed.pk)


@router.get(ONE, auth=None, response={200: OfferOut} | errors(404), summary="An offer")
def get_offer(request: HttpRequest, offer_id: UUID) -> HttpResponse:
    return json_response(selectors.offer_document(offer_id))


@router.patch(ONE, auth=write, response=CHANGED, summary="Change an offer")
def patch_offer(request: HttpRequest, offer_id: UUID, body: OfferPatch) -> HttpResponse:
    """Price, kinds, begin, pause and list again; jobs submitted before keep the price they saw."""
    price = body.price.on_demand.amount if body.price else None
    change = OfferChange(price=price, sla=_sla(body), **body.dict(exclude={"price", "sla"}))
    services.change_offer(seller=caller(request), offer_id=offer_id, change=change)
    return json_response(selectors.offer_document(offer_id))


@router.delete(ONE, auth=write, response={200: OfferOut} | errors(403, 404), summary="Withdraw an offer")
def delete_offer(request: HttpRequest, offer_id: UUID) -> HttpResponse:
    """For good; a repeat answers the same. Jobs already submitted under it go on."""
    services.delist_offer(seller=caller(request), offer_id=offer_id)
    return json_response(selectors.offer_document(offer_id))


def _sla(body: OfferIn | OfferPatch) -> tuple[int, bool] | None:
    return (round(body.sla.availability * 10_000), body.sla.only) if body.sla else None
