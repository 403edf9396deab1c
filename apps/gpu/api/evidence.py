"""`/v1/jobs/{id}/logs`, `/stream` and `/rows`: what a client may look into beyond result and receipt."""

from typing import Any, Literal
from uuid import UUID

from django.conf import settings
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from ninja import Query, Router

from aitbc.core.auth import ApiKey, caller
from aitbc.core.errors import Forbidden
from aitbc.core.schema import errors
from apps.gpu.api.schemas import RowOut
from apps.gpu.runtimes.matrices import MAX_N
from apps.gpu.selectors.logs import EVENTS, FINAL, RETRY, as_events, as_text, last_event, lines_after
from apps.gpu.services import logs, rows

router = Router(tags=["jobs"], auth=ApiKey("jobs:read"))
_TEXT = {"schema": {"type": "string"}}
_EVENT = {"schema": {"type": "object", "properties": {"event": {"type": "string"}, "data": {"type": "string"}}}}
_LOGS: dict[str, Any] = {
    "responses": {
        200: {"content": {"text/plain": _TEXT, EVENTS: _TEXT}},
        307: {"description": "Where events of a job that is not final can be followed"},
    }
}


@router.get(
    "/jobs/{uuid:job_id}/logs",
    response={200: None, 307: None} | errors(403, 404),
    summary="What a job wrote while it ran",
    openapi_extra=_LOGS,
)
def get_logs(request: HttpRequest, job_id: UUID) -> HttpResponse:
    """Text, or server-sent events where `Accept` names them: one per group of lines, numbered for
    `Last-Event-ID`, then `end` once the job is final. Until then they are followed where 307 leads."""
    client = caller(request).user_id
    if EVENTS in request.META.get("HTTP_ACCEPT", ""):
        response = _events(request, client, job_id, "logs/follow", logs.ticket(client=client, job=job_id))
    else:
        _, found = lines_after(client=client, job=job_id, seq=0)
        response = HttpResponse(as_text(found), content_type="text/plain; charset=utf-8")
    response["Vary"] = "Accept"
    response["Cache-Control"] = "no-store"
    return response


@router.get(
    "/jobs/{uuid:job_id}/stream",
    response={200: None, 307: None} | errors(403, 404),
    summary="What a job writes, as it writes it",
    openapi_extra={"responses": _LOGS["responses"] | {200: {"content": {EVENTS: _EVENT}}}},
)
def stream_job(
    request: HttpRequest, job_id: UUID, on_disconnect: Literal["cancel", "detach"] = "detach"
) -> HttpResponse:
    """The events of `/logs`; those of `llm.chat` are `{"delta": text}`. With `on_disconnect=cancel`, for a key
    that may write jobs, the job ends when its reader goes away before it is final."""
    who, cancels = caller(request), on_disconnect == "cancel"
    if cancels and not who.has("jobs:write"):
        raise Forbidden("auth.scope", "this key lacks the scope jobs:write", scope="jobs:write")
    ticket = logs.ticket(client=who.user_id, job=f"{job_id}/cancel" if cancels else job_id)
    response = _events(request, who.user_id, job_id, "stream", f"{ticket}&on_disconnect={on_disconnect}")
    response["Cache-Control"] = "no-store"
    return response


def _events(request: HttpRequest, client: UUID, job: UUID, where: str, ticket: str) -> HttpResponse:
    """What there is of a final job; else where what comes can be followed."""
    state, found = lines_after(client=client, job=job, seq=last_event(request.META.get("HTTP_LAST_EVENT_ID", "")))
    if state in FINAL or not settings.STREAM_URL:
        return HttpResponse(RETRY + as_events(state, found), content_type=EVENTS)
    return HttpResponseRedirect(f"{settings.STREAM_URL}/v1/jobs/{job}/{where}?ticket={ticket}", status=307)


@router.get(
    "/jobs/{uuid:job_id}/rows",
    response={200: RowOut} | errors(403, 404, 409, 425),
    summary="A row of a matrix product, proved under the miner's root",
)
def get_row(request: HttpRequest, job_id: UUID, index: int = Query(..., ge=0, lt=MAX_N)) -> dict[str, Any]:
    """For `bench.matmul`. `leaf` = keccak(step 0 || index || SHA-256 of the row as little-endian int32),
    four bytes each, big-endian; with `proof` it lies under `root`, which the miner signed. Large products
    are not kept: 404 `rows.gone`. 409 `rows.mismatch`: the root is not that of the true product."""
    return rows.row(client=caller(request).user_id, job=job_id, index=index)
