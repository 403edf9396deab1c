"""Quotes and orders at `/v1/marketplace`, orders as their miner sees them at `/v1/miners`, bonds at `/v1/bonds`."""

from typing import Literal
from uuid import UUID

from django.http import HttpRequest, HttpResponse
from ninja import Query, Router

from aitbc.core.auth import ApiKey, PartyKey, caller
from aitbc.core.idempotency import idempotent, json_response
from aitbc.core.schema import MoneyIn, errors
from apps.marketplace.api.order_schemas import (
    BondOut,
    CancelIn,
    ExtendIn,
    OrderList,
    OrderOut,
    OrderState,
    OrderType,
    QuoteIn,
    QuoteOut,
)
from apps.marketplace.services import orders
from apps.trading.services.escrow import call

router = Router(tags=["orders"], auth=ApiKey("jobs:write"))
miners = Router(tags=["orders"], auth=ApiKey("miner"))
bonds = Router(tags=["bonds"], auth=ApiKey("money:write"))
PROBLEMS = errors(403, 404, 409)
LIMIT = Query(50, ge=1, le=200)


@router.post("/quotes", response={201: QuoteOut} | PROBLEMS, summary="Ask for a price, and keep the devices for it")
@idempotent("quotes.create")
def create_quote(request: HttpRequest, body: QuoteIn) -> tuple[int, str]:
    """Of all listed offers that meet this and are free: the cheapest, then the oldest."""
    return 201, orders.quote(client=caller(request).user_id, ask=body.ask())


@router.get("/quotes/{uuid:quote_id}", auth=ApiKey("jobs:read"), response={200: QuoteOut} | PROBLEMS, summary="A quote")
def get_quote(request: HttpRequest, quote_id: UUID) -> HttpResponse:
    return json_response(call("quote_shown", caller(request).user_id, quote_id))


@router.post("/quotes/{uuid:quote_id}/accept", response={201: OrderOut} | PROBLEMS, summary="Accept a quote")
@idempotent("quotes.accept")
def accept_quote(request: HttpRequest, quote_id: UUID) -> tuple[int, str]:
    """The total is held until the miner starts, which then is paid by the second."""
    return 201, orders.accept(client=caller(request).user_id, quote=quote_id)


@router.get("/orders", auth=PartyKey("jobs:read"), response={200: OrderList} | PROBLEMS, summary="Your orders")
def list_orders(
    request: HttpRequest,
    side: Literal["client", "provider"] = "client",
    state: OrderState | None = None,
    type: OrderType | None = None,
    offer_id: UUID | None = None,
    cursor: UUID | None = None,
    limit: int = LIMIT,
) -> HttpResponse:
    """Newest first; `sums` are those of all that the filters leave."""
    me = caller(request).user_id
    sides = (me, None) if side == "client" else (None, me)
    return json_response(call("orders_of", *sides, None, state, type, offer_id, cursor, limit))


@router.get(
    "/orders/{uuid:order_id}", auth=PartyKey("jobs:read"), response={200: OrderOut} | PROBLEMS, summary="An order"
)
def get_order(request: HttpRequest, order_id: UUID) -> HttpResponse:
    return json_response(call("order_shown", caller(request).user_id, order_id))


@router.post(
    "/orders/{uuid:order_id}/cancel",
    auth=PartyKey("jobs:write"),
    response={200: OrderOut} | PROBLEMS,
    summary="Cancel an order",
)
@idempotent("orders.cancel")
def cancel_order(request: HttpRequest, order_id: UUID, body: CancelIn) -> tuple[int, str]:
    """Its client gets `cancel_refund_bps` of the unused time back; canceled by its provider, all of it."""
    return 200, orders.cancel(user=caller(request).user_id, order=order_id, reason=body.reason)


@router.post("/orders/{uuid:order_id}/extend", response={200: OrderOut} | PROBLEMS, summary="Extend an order")
@idempotent("orders.extend")
def extend_order(request: HttpRequest, order_id: UUID, body: ExtendIn) -> tuple[int, str]:
    """At the same rate, if the devices are free."""
    return 200, call("order_extend", caller(request).user_id, order_id, body.seconds)


@router.post("/orders/{uuid:order_id}/move", response={201: OrderOut} | PROBLEMS, summary="Go on elsewhere")
@idempotent("orders.move")
def move_order(request: HttpRequest, order_id: UUID) -> tuple[int, str]:
    """The rest of an order that its provider, a higher bid or a missed start ended, on the same hardware."""
    return 201, call("order_move", caller(request).user_id, order_id)


@miners.get("/me/orders", response={200: OrderList} | PROBLEMS, summary="This miner's orders")
def my_orders(
    request: HttpRequest, state: OrderState | None = None, cursor: UUID | None = None, limit: int = LIMIT
) -> HttpResponse:
    key = caller(request).key_id
    return json_response(call("orders_of", None, None, key, state, None, None, cursor, limit))


@miners.post("/orders/{uuid:order_id}/start", response={200: OrderOut} | PROBLEMS, summary="The devices are ready")
@idempotent("orders.start")
def start_order(request: HttpRequest, order_id: UUID) -> tuple[int, str]:
    return 200, call("order_start", caller(request).key_id, order_id)


@bonds.get("", auth=ApiKey("money:read"), response={200: BondOut} | PROBLEMS, summary="Your bond")
def get_bond(request: HttpRequest) -> HttpResponse:
    return json_response(call("bond_shown", caller(request).user_id))


@bonds.post("/{action}", response={200: BondOut} | PROBLEMS, summary="Deposit into your bond, or withdraw from it")
@idempotent("bonds.act")
def act_on_bond(request: HttpRequest, action: Literal["deposit", "withdraw"], body: MoneyIn) -> tuple[int, str]:
    """Only what no order reserves can be withdrawn; it arrives after the dispute window."""
    return 200, call(f"bond_{action}", caller(request).user_id, body.units)
