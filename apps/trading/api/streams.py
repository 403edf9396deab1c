"""`/v1/streams`: prepaid money that runs to its payees by the second."""

from uuid import UUID

from django.http import HttpRequest, HttpResponse
from ninja import Query, Router

from aitbc.core.auth import ApiKey, caller
from aitbc.core.idempotency import idempotent, json_response
from aitbc.core.schema import MoneyIn, errors, list_of
from apps.trading.api.schemas import StreamIn, StreamOut
from apps.trading.services import streams
from apps.trading.services.escrow import call

router = Router(tags=["money"], auth=ApiKey("money:read"))
WRITE, CHANGED = ApiKey("money:write"), {200: StreamOut} | errors(403, 404, 409)


@router.post("", auth=WRITE, response={201: StreamOut} | errors(403, 409), summary="Open a stream")
@idempotent("streams.open")
def open_stream(request: HttpRequest, body: StreamIn) -> tuple[int, str]:
    """The deposit leaves your balance now; payees are paid out of it by the second until it is spent."""
    return 201, streams.open_stream(
        owner=caller(request).user_id,
        payees={payee: rate.units for payee, rate in body.payees.items()},
        deposit=body.deposit.units,
        warn_seconds=body.warn_seconds,
        topup=body.topup.amount.units if body.topup else 0,
        topup_cap=body.topup.cap.units if body.topup else 0,
    )


@router.get("", response={200: list_of(StreamOut, UUID)} | errors(403), summary="Streams you own or are paid by")
def list_streams(
    request: HttpRequest, cursor: UUID | None = None, limit: int = Query(50, ge=1, le=200)
) -> HttpResponse:
    return json_response(call("streams_of", caller(request).user_id, cursor, limit))


@router.get("/{uuid:stream_id}", response={200: StreamOut} | errors(403, 404), summary="A stream's forecast")
def get_stream(request: HttpRequest, stream_id: UUID) -> HttpResponse:
    return json_response(streams.document(user=caller(request).user_id, stream=stream_id))


@router.post("/{uuid:stream_id}/deposits", auth=WRITE, response=CHANGED, summary="Make a stream last longer")
@idempotent("streams.deposit")
def deposit(request: HttpRequest, stream_id: UUID, body: MoneyIn) -> tuple[int, str]:
    """Anybody may pay. What is not spent in the end returns, to the last depositor first."""
    user = caller(request).user_id
    return 200, streams.deposit(user=user, stream=stream_id, amount=body.units)


@router.post("/{uuid:stream_id}/{action}", auth=WRITE, response=CHANGED, summary="Settle or close a stream")
@idempotent("streams.act")
def act_on_stream(request: HttpRequest, stream_id: UUID, action: streams.Action) -> tuple[int, str]:
    """Pay what has accrued until now; the owner's close also returns the rest to the depositors."""
    return 200, streams.act(action, user=caller(request).user_id, stream=stream_id)
