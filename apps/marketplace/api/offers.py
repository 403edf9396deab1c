"""`/v1/marketplace/offers`: what is for sale. Reading is public, writing is for the miner's side."""

from typing import Any
from uuid import UUID

from django.http import HttpRequest, HttpResponse
from ninja import Query, Router

from aitbc.core.auth import PartyKey, caller
from aitbc.core.idempotency import idempotent, json_response
from aitbc.core.schema import errors
from apps.marketplace.api.schemas import FindIn, OfferIn, OfferList, OfferOut, OfferPatch, TermsIn
from apps.marketplace.selectors import offers as selectors
from apps.marketplace.services import offers as services
from apps.marketplace.services import timing
from apps.marketplace.services.offers import NewOffer, OfferChange, Terms

router = Router(tags=["marketplace"])
write = PartyKey("offers:write")
ONE = "/offers/{uuid:offer_id}"
CHANGED: dict[Any, Any] = {200: OfferOut} | errors(403, 404, 409)


@router.get("/offers", auth=None, response={200: OfferList} | errors(503), summary="Search offers")
def search_offers(request: HttpRequest, wanted: Query[FindIn]) -> HttpResponse:
    """What is on sale, unless `q` speaks of `state`. Equal rows keep one order, so pages neither skip nor repeat."""
    with timing.measured("search"):
        page = selectors.search(**wanted.dict(exclude={"count"}), count=wanted.count == "exact")
    return json_response(page)


@router.post("/offers", auth=write, response={201: OfferOut} | errors(403, 404, 409), summary="List an offer")
@idempotent("offers.create")
def create_offer(request: HttpRequest, body: OfferIn) -> tuple[int, str]:
    """A device is in one listed offer at a time."""
    named = body.dict(include={"miner_id", "devices", "kinds"})
    wanted = NewOffer(price=body.price.on_demand.amount, terms=_terms(body), sla=_sla(body), **named)
    listed = services.list_offer(seller=caller(request), offer=wanted)
    return 201, selectors.offer_document(listed.pk)


@router.get(ONE, auth=None, response={200: OfferOut} | errors(404), summary="An offer")
def get_offer(request: HttpRequest, offer_id: UUID) -> HttpResponse:
    return json_response(selectors.offer_document(offer_id))


@router.patch(ONE, auth=write, response=CHANGED, summary="Change an offer")
def patch_offer(request: HttpRequest, offer_id: UUID, body: OfferPatch) -> HttpResponse:
    """Prices, terms, kinds, pause and list again; jobs submitted before keep the price they saw."""
    price = body.price.on_demand.amount if body.price and body.price.on_demand else None
    change = OfferChange(price=price, terms=_terms(body), kinds=body.kinds, state=body.state, sla=_sla(body))
    services.change_offer(seller=caller(request), offer_id=offer_id, change=change)
    return json_response(selectors.offer_document(offer_id))


@router.delete(ONE, auth=write, response={200: OfferOut} | errors(403, 404), summary="Withdraw an offer")
def delete_offer(request: HttpRequest, offer_id: UUID) -> HttpResponse:
    """For good; a repeat answers the same. Jobs already submitted under it go on."""
    services.delist_offer(seller=caller(request), offer_id=offer_id)
    return json_response(selectors.offer_document(offer_id))


def _sla(body: OfferIn | OfferPatch) -> tuple[int, bool] | None:
    return (round(body.sla.availability * 10_000), body.sla.only) if body.sla else None


def _terms(body: OfferIn | OfferPatch) -> Terms:
    spot, discount = (body.price.spot, body.price.reserved_discount_bps) if body.price else (None, None)
    said = body.dict(include={*TermsIn.model_fields})
    return Terms(spot_price=spot.units if spot else None, reserved_discount_bps=discount, **said)
