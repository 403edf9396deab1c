"""`/v1/jobs`: what clients do."""

from typing import Any
from uuid import UUID

import orjson
from django.http import HttpRequest, HttpResponse
from ninja import Query, Router
from pydantic import AwareDatetime, ValidationError

from aitbc.core import idempotency
from aitbc.core.auth import ApiKey, caller
from aitbc.core.errors import DomainError
from aitbc.core.http import from_validation, problem
from aitbc.core.idempotency import json_response
from aitbc.core.schema import cursor_parameter, errors
from apps.gpu.api.schemas import (
    BatchIn,
    BatchOut,
    JobIn,
    JobList,
    JobOut,
    ReceiptOut,
    ResultList,
    ResultOut,
    ServiceIn,
    State,
)
from apps.gpu.selectors import jobs as selectors
from apps.gpu.services import cancellation, submission, typed
from apps.gpu.services.submission import Order

router = Router(tags=["jobs"])
read, write = ApiKey("jobs:read"), ApiKey("jobs:write")


@router.post("/jobs", auth=write, response={200: JobOut, 201: JobOut} | errors(403, 404, 409), summary="Submit a job")
def submit_job(request: HttpRequest, body: JobIn) -> HttpResponse:
    """Holds `max_price` in escrow and queues the job, both or neither. A repeat of a job's `id` with the
    same content answers 200 with that job."""
    return _submitted(request, order_of(body))


@router.get("/services", auth=None, response={200: dict[str, Any]} | errors(503), summary="Typed services")
def list_services(request: HttpRequest) -> dict[str, Any]:
    """Public. `price` is that of `seconds` on the cheapest miner that runs the service now, null without one."""
    return {"items": typed.catalogue(), "next": None}


@router.post(
    "/services/{name}", auth=write, response={200: JobOut, 201: JobOut} | errors(403, 404, 409), summary="Use a service"
)
def use_service(request: HttpRequest, name: str, body: ServiceIn) -> HttpResponse:
    """A job of the service's kind, made from checked words alone; it never costs more than its price."""
    return _submitted(request, typed.order_of(name, body.input, body.max_price.amount if body.max_price else None))


def _submitted(request: HttpRequest, order: Order) -> HttpResponse:
    key = idempotency.read_key(request)
    digest = idempotency.digest(request) if key is not None else None
    state, document = submission.submit(client=caller(request).user_id, order=order, key=key, digest=digest)
    idempotency.refuse(state)
    if state == "replay":
        return idempotency.replayed(document, 201)
    return json_response(document, 201 if state == "ok" else 200)


@router.post(
    "/jobs/batch", auth=write, response={207: BatchOut} | errors(403, 404, 409), summary="Submit up to 100 jobs"
)
def submit_batch(request: HttpRequest, body: BatchIn) -> HttpResponse:
    """One transaction; each item has its own status, and needs its own client-made `id`."""
    orders = [_read_order(item) for item in body.jobs]
    answers = submission.submit_batch(client=caller(request).user_id, orders=orders)
    return json_response(orjson.dumps({"items": [_batch_item(request, a) for a in answers]}, default=str), 207)


@router.get("/jobs", auth=read, response={200: JobList} | errors(403), summary="Your jobs, newest first")
def list_jobs(
    request: HttpRequest,
    state: State | None = None,
    kind: str | None = Query(None, max_length=40, pattern=r"^[^\x00]*$"),
    created_after: AwareDatetime | None = None,
    created_before: AwareDatetime | None = None,
    cursor: str | None = cursor_parameter(),
    limit: int = Query(50, ge=1, le=200),
) -> HttpResponse:
    page = selectors.page_of_jobs(
        client=caller(request).user_id,
        state=state,
        kind=kind,
        created_after=created_after,
        created_before=created_before,
        cursor=cursor,
        limit=limit,
    )
    return json_response(page)


@router.get("/jobs/results", auth=read, response={207: ResultList} | errors(403), summary="Results of up to 100 jobs")
def read_results(request: HttpRequest, id: list[UUID] = Query(..., min_length=1, max_length=100)) -> HttpResponse:
    """Output and receipt of each job, or why there is none yet."""
    found = selectors.results(client=caller(request).user_id, jobs=id)
    items = [
        {"status": a.status, "problem": problem(request, a)} if isinstance(a, DomainError) else {"status": 200, **a}
        for a in found
    ]
    return json_response(orjson.dumps({"items": items}, default=str), 207)


@router.get("/jobs/{uuid:job_id}", auth=read, response={200: JobOut} | errors(403, 404), summary="A job")
def get_job(request: HttpRequest, job_id: UUID) -> HttpResponse:
    return json_response(selectors.job_document(client=caller(request).user_id, job=job_id))


@router.post(
    "/jobs/{uuid:job_id}/cancel", auth=write, response={200: JobOut} | errors(403, 404, 409), summary="Cancel a job"
)
def cancel_job(request: HttpRequest, job_id: UUID) -> HttpResponse:
    """Refunds what was not metered yet."""
    return json_response(cancellation.cancel(client=caller(request).user_id, job=job_id))


@router.get(
    "/jobs/{uuid:job_id}/result",
    auth=read,
    response={200: ResultOut} | errors(403, 404, 409, 425),
    summary="A job's result",
)
def get_result(request: HttpRequest, job_id: UUID) -> HttpResponse:
    """425 `job.not_ready` until the job is final; 409 with the job's own error when it did not complete."""
    return json_response(selectors.result_document(client=caller(request).user_id, job=job_id))


@router.get(
    "/jobs/{uuid:job_id}/receipt", auth=read, response={200: ReceiptOut} | errors(403, 404), summary="A job's receipt"
)
def get_receipt(request: HttpRequest, job_id: UUID) -> HttpResponse:
    document = selectors.receipt_document(user=caller(request).user_id, job=job_id)
    # Sorted and without spaces this is RFC 8785: the body as it is makes a file for `verify_receipt`.
    return json_response(orjson.dumps(document, option=orjson.OPT_SORT_KEYS))


def order_of(body: JobIn) -> Order:
    wants = body.constraints
    return Order(
        kind=body.kind,
        max_price=body.max_price.amount if body.max_price else None,
        input=body.input,
        input_artifact=body.input_artifact,
        id=body.id,
        offer_id=body.offer_id,
        order_id=body.order_id,
        ttl_seconds=body.ttl_seconds,
        priority=body.priority,
        gpu_model=wants.gpu_model,
        min_vram_gb=wants.min_vram_gb,
        cuda=wants.cuda,
        region=wants.region,
        models=tuple(wants.models),
        min_reliability=wants.min_reliability,
        purpose=body.purpose,
    )


def _read_order(item: dict[str, Any]) -> Order | DomainError:
    try:
        body = JobIn.model_validate(item)
    except ValidationError as error:
        return from_validation([dict(e) for e in error.errors()])
    if body.id is None:
        return from_validation([{"loc": ["body", "id"], "msg": "a batch item needs a client-made UUID version 7"}])
    return order_of(body)


def _batch_item(request: HttpRequest, answer: tuple[str, Any] | DomainError) -> dict[str, Any]:
    if isinstance(answer, DomainError):
        return {"status": answer.status, "problem": problem(request, answer)}
    code, document = answer
    return {"status": 201 if code == "ok" else 200, "job": orjson.Fragment(document)}
