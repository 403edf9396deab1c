"""`/v1/marketplace/auctions`: clients ask, providers bid. Lists and auctions are public."""

from typing import Annotated, Literal
from uuid import UUID

import orjson
from django.http import HttpRequest, HttpResponse
from ninja import Query, Router
from pydantic import AwareDatetime, Field

from aitbc.core.auth import ApiKey, PartyKey, caller
from aitbc.core.idempotency import idempotent, json_response
from aitbc.core.schema import Money, MoneyIn, Strict, errors, list_of
from apps.gpu.api.schemas import Hash, Kind, Name
from apps.marketplace.api.order_schemas import QuoteConstraints, QuoteIn, Seconds
from apps.marketplace.services import auctions
from apps.trading.services.escrow import call

router = Router(tags=["auctions"], auth=PartyKey("jobs:write"))
PROBLEMS = errors(403, 404, 409)
ONE = "/auctions/{uuid:auction_id}"
BID = ONE + "/bids/{uuid:bid_id}"
State = Literal["open", "reveal", "award", "awarded", "void"]
Action = Literal["withdraw", "award"]


class AuctionIn(Strict):
    constraints: QuoteConstraints
    kind: Kind | None = Field(None, description="A job kind that it must run.")
    seconds: Seconds
    ceiling: MoneyIn = Field(description="Highest bid: per second, for all devices, everything included.")
    deposit: MoneyIn = Field(description="What a bidder forfeits who does not reveal, or whose offer is gone.")
    closes_at: AwareDatetime
    sealed: bool = False
    reveal_seconds: Annotated[int, Field(ge=10, le=86_400)] | None = Field(600, description="Of a sealed one.")
    award: Literal["lowest", "manual"] = "lowest"
    failover: bool = False

    def terms(self) -> str:
        """As `auction_open` takes it."""
        asked = QuoteIn.model_validate(self.dict(include={"constraints", "kind", "seconds"})).ask()
        terms = self.dict(include={"sealed", "reveal_seconds", "award", "failover", "seconds"})
        terms |= {"ceiling": str(self.ceiling.units), "deposit": str(self.deposit.units), "wants": asked["wants"]}
        return orjson.dumps(terms | {"closes": self.closes_at.timestamp()}).decode()


class BidIn(Strict):
    offer_id: UUID
    price: MoneyIn | None = Field(None, description="Open: per second, for all devices.")
    commitment: Hash | None = Field(None, description="Sealed: SHA-256 of auction id, your id, price, salt.")


class RevealIn(Strict):
    price: MoneyIn
    salt: Hash


class BidOut(BidIn):
    id: UUID
    auction_id: UUID
    bidder: UUID
    state: Literal["open", "revealed", "withdrawn", "won", "lost", "failed", "forfeited"]
    hold: Money
    salt: Hash | None
    order_id: UUID | None
    created_at: AwareDatetime


class AuctionOut(AuctionIn):
    id: UUID
    client: UUID
    state: State
    reason: str | None
    total: Money = Field(description="What its client holds: ceiling times seconds.")
    hold: Money = Field(description="What each bidder holds.")
    reveal_until: AwareDatetime | None
    award_until: AwareDatetime | None
    order_id: UUID | None
    bid_count: int
    bids: list[BidOut] | None = Field(description="Cheapest first; null in lists.")
    created_at: AwareDatetime


class AuctionFilters(Strict):
    state: State | None = None
    model: Name | None = Field(None, description="As in the constraints, in any case.")
    client: UUID | None = None
    bidder: UUID | None = None
    cursor: UUID | None = None
    limit: Annotated[int, Field(ge=1, le=200)] = 50


@router.get("/auctions", auth=None, response={200: list_of(AuctionOut, UUID)} | PROBLEMS, summary="Auctions")
def list_auctions(request: HttpRequest, wanted: Query[AuctionFilters]) -> HttpResponse:
    """Newest first."""
    return json_response(call("auctions_page", *wanted.dict().values()))


@router.post("/auctions", auth=ApiKey("jobs:write"), response={201: AuctionOut} | PROBLEMS, summary="Ask for bids")
@idempotent("auctions.create")
def create_auction(request: HttpRequest, body: AuctionIn) -> tuple[int, str]:
    """Ceiling times seconds is held until the award."""
    return 201, call("auction_open", caller(request).user_id, body.terms())


@router.get(ONE, auth=None, response={200: AuctionOut} | PROBLEMS, summary="An auction and its bids")
def get_auction(request: HttpRequest, auction_id: UUID) -> HttpResponse:
    return json_response(call("auction_shown", auction_id))


@router.post(ONE + "/cancel", response={200: AuctionOut} | PROBLEMS, summary="Cancel before a price is known")
@idempotent("auctions.cancel")
def cancel_auction(request: HttpRequest, auction_id: UUID) -> tuple[int, str]:
    return 200, call("auction_cancel", caller(request).user_id, auction_id)


@router.post(ONE + "/bids", auth=PartyKey("offers:write"), response={201: BidOut} | PROBLEMS, summary="Bid")
@idempotent("auctions.bid")
def create_bid(request: HttpRequest, auction_id: UUID, body: BidIn) -> tuple[int, str]:
    """With an offer of yours, which meets the constraints. Nothing is occupied before the award."""
    me, sealed = caller(request).user_id, body.commitment
    return 201, auctions.bid(bidder=me, auction=auction_id, offer=body.offer_id, price=body.price, sealed=sealed)


@router.post(BID + "/reveal", auth=PartyKey("offers:write"), response={200: BidOut} | PROBLEMS, summary="Reveal a bid")
@idempotent("auctions.reveal")
def reveal_bid(request: HttpRequest, auction_id: UUID, bid_id: UUID, body: RevealIn) -> tuple[int, str]:
    me = caller(request).user_id
    return 200, auctions.reveal(bidder=me, auction=auction_id, bid=bid_id, price=body.price, salt=body.salt)


@router.post(BID + "/{action}", response={200: BidOut} | PROBLEMS, summary="Withdraw your bid, or award to one")
@idempotent("auctions.act")
def act_on_bid(request: HttpRequest, auction_id: UUID, bid_id: UUID, action: Action) -> tuple[int, str]:
    """A bid that cannot be delivered is then `failed` or `forfeited`: award it to another."""
    return 200, call(f"auction_{action}", caller(request).user_id, auction_id, bid_id)
