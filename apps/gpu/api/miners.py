"""`/v1/miners`: the protocol of those who sell compute."""

from functools import partial
from typing import Any
from uuid import UUID

import orjson
from django.conf import settings
from django.http import HttpRequest, HttpResponse
from ninja import Query, Router, Status
from pydantic import AwareDatetime, ValidationError

from aitbc.core.auth import ApiKey, caller
from aitbc.core.errors import DomainError, Invalid
from aitbc.core.http import from_validation, problem
from aitbc.core.idempotency import json_response
from aitbc.core.schema import errors
from apps.gpu.api.schemas import (
    AcceptedList,
    AcceptedOut,
    BatchResultIn,
    CapabilitiesIn,
    CommitIn,
    CommitOut,
    EarningsOut,
    FailIn,
    HeartbeatIn,
    HeartbeatOut,
    JobList,
    JobOut,
    MemoryIn,
    MinerOut,
    NonceOut,
    OpenIn,
    OpenOut,
    PollIn,
    PollOut,
    ProgressIn,
    RegisterIn,
    RegisterOut,
    ResultIn,
    ResultsIn,
    State,
    Telemetry,
    TokenIn,
)
from apps.gpu.services import challenges, heartbeats, leases, logs, memory_proofs, miners, reports
from apps.gpu.services.miners import DeviceClaim, Registration
from apps.gpu.services.reports import Report
from apps.trading.services.escrow import call

router = Router(tags=["miners"], auth=ApiKey("miner"))


@router.post("/nonce", response={200: NonceOut} | errors(403), summary="A nonce to sign for registration")
def make_nonce(request: HttpRequest) -> dict[str, Any]:
    """Single-use, for this key, ten minutes. Sign EIP-712 `MinerRegistration{prefix, nonce, address}`."""
    me = caller(request)
    return {"nonce": miners.make_nonce(key=me.key_id), "prefix": me.prefix, "chain_id": settings.CHAIN_ID}


@router.post(
    "/register", response={200: RegisterOut, 201: RegisterOut} | errors(403, 409), summary="Register this machine"
)
def register(request: HttpRequest, body: RegisterIn) -> Status[dict[str, Any]]:
    """The miner's identity is its API key; a repeat brings it up to date and keeps its leases."""
    claims = tuple(DeviceClaim(**device.dict()) for device in body.devices)
    registration = Registration(
        name=body.name,
        region=body.region,
        concurrency=body.concurrency,
        kinds=tuple(body.kinds),
        models=tuple(body.models),
        devices=claims,
        price=body.price.amount,
        address=body.address,
        proof=body.proof,
        nonce=body.nonce,
        sandbox=body.sandbox,
    )
    miner, created = miners.register(caller=caller(request), registration=registration)
    challenge = challenges.issue_missing(miner)
    answer = miners.document(miner) | {
        "challenge": challenge,
        "challenges": challenges.open_for(miner),
        "wait_url": f"{settings.STREAM_URL}/v1/miners/wait" if settings.STREAM_URL else None,
        "chain_id": settings.CHAIN_ID,
    }
    return Status(201 if created else 200, answer)


@router.post("/heartbeat", response={200: HeartbeatOut} | errors(403, 404, 409), summary="I am alive")
def heartbeat(request: HttpRequest, body: HeartbeatIn) -> dict[str, Any]:
    """Renews the leases in `running`; `cancel` names those to stop. Beats are chained by `previous`."""
    samples = _check_telemetry(body.telemetry)
    return heartbeats.beat(
        key=caller(request).key_id,
        sequence=body.sequence,
        previous=body.previous,
        running=body.running,
        telemetry=body.telemetry,
        samples=samples,
        signature=body.signature,
    )


@router.post("/poll", response={200: PollOut} | errors(403, 404), summary="Lease work")
def poll(request: HttpRequest, body: PollIn) -> HttpResponse:
    """Up to `max_jobs` of the best ranked jobs that fit, within the declared slots. When all waiting
    places of this process are taken it answers at once, with `Retry-After`."""
    document, waited = leases.poll(
        key=caller(request).key_id, most=body.max_jobs, kinds=body.kinds or None, wait_seconds=body.wait_seconds
    )
    response = json_response(f'{{"jobs":{document}}}')
    if not waited:
        response["Retry-After"] = "1"
    return response


@router.post(
    "/challenges/{uuid:challenge_id}/commit", response={200: CommitOut} | errors(403, 404, 409), summary="Commit"
)
def commit_challenge(request: HttpRequest, challenge_id: UUID, body: CommitIn) -> dict[str, Any]:
    """Merkle roots of the rows of every step; only then the rows to open are drawn."""
    return challenges.commit(key=caller(request).key_id, challenge=challenge_id, roots=body.roots)


@router.post("/challenges/{uuid:challenge_id}/open", response={200: OpenOut} | errors(403, 404, 409), summary="Open")
def open_challenge(request: HttpRequest, challenge_id: UUID, body: OpenIn) -> dict[str, Any]:
    """The asked rows with their proofs; the platform recomputes exactly those."""
    return challenges.open_rows(key=caller(request).key_id, challenge=challenge_id, rows=body.rows)


@router.post(
    "/challenges/{uuid:challenge_id}/memory",
    response={200: dict[str, Any]} | errors(403, 404, 409),
    summary="Prove memory",
)
def prove_memory(request: HttpRequest, challenge_id: UUID, body: MemoryIn) -> dict[str, Any]:
    """First the root of the filled memory, then those of its readings, each for a `nonce`; then the rows drawn, for
    the `verdict`."""
    return memory_proofs.answer(key=caller(request).key_id, challenge=challenge_id, roots=body.roots, rows=body.rows)


@router.get("/me", response={200: MinerOut} | errors(403, 404), summary="This miner")
def get_me(request: HttpRequest) -> dict[str, Any]:
    return miners.document(miners.of_key(caller(request).key_id))


@router.put(
    "/me/capabilities", response={200: MinerOut} | errors(403, 404), summary="Change kinds, models, price, slots"
)
def put_capabilities(request: HttpRequest, body: CapabilitiesIn) -> dict[str, Any]:
    miner = miners.update_capabilities(
        key=caller(request).key_id,
        kinds=body.kinds,
        models=body.models,
        price=body.price.amount if body.price else None,
        concurrency=body.concurrency,
    )
    return miners.document(miner)


@router.post("/me/drain", response={200: MinerOut} | errors(403, 404), summary="Finish, take no more")
def drain(request: HttpRequest) -> dict[str, Any]:
    return miners.document(miners.drain(key=caller(request).key_id))


@router.delete("/me", response={200: MinerOut} | errors(403, 404), summary="Sign off; leases are returned")
def sign_off(request: HttpRequest) -> dict[str, Any]:
    return miners.document(miners.sign_off(key=caller(request).key_id))


@router.get("/me/jobs", response={200: JobList} | errors(403, 404), summary="Jobs this miner holds or held")
def my_jobs(
    request: HttpRequest, state: State | None = None, cursor: UUID | None = None, limit: int = Query(50, ge=1, le=200)
) -> HttpResponse:
    return json_response(call("gpu_jobs_of_miner", caller(request).key_id, state, cursor, limit))


@router.get("/me/earnings", response={200: EarningsOut} | errors(403, 404), summary="What this miner's owner earned")
def my_earnings(
    request: HttpRequest, from_: AwareDatetime | None = Query(None, alias="from"), to: AwareDatetime | None = None
) -> HttpResponse:
    return json_response(call("gpu_earnings", caller(request).key_id, from_, to))


@router.post("/results", response={207: AcceptedList} | errors(403), summary="Report up to 100 results")
def report_results(request: HttpRequest, body: ResultsIn) -> HttpResponse:
    """Each item is idempotent by its job and lease token, and has its own status."""
    parsed = [_read_report(item) for item in body.results]
    fresh = [report for report in parsed if isinstance(report, Report)]
    answers = iter(reports.finish_batch(key=caller(request).key_id, reports=fresh) if fresh else [])
    outcomes = [report if isinstance(report, DomainError) else next(answers) for report in parsed]
    items = [
        {"status": o.status, "problem": problem(request, o)} if isinstance(o, DomainError) else {"status": 200, **o}
        for o in outcomes
    ]
    return json_response(orjson.dumps({"items": items}, default=str), 207)


@router.post("/{uuid:job_id}/start", response={200: JobOut} | errors(403, 404, 409), summary="Metering begins")
def start(request: HttpRequest, job_id: UUID, body: TokenIn) -> HttpResponse:
    return json_response(reports.start(key=caller(request).key_id, job=job_id, token=body.lease_token))


@router.post("/{uuid:job_id}/progress", response={200: JobOut} | errors(403, 404, 409), summary="Tell how far it is")
def report_progress(request: HttpRequest, job_id: UUID, body: ProgressIn) -> HttpResponse:
    """`logs` are lines that the job wrote; its client reads them at `/v1/jobs/{id}/logs`."""
    seen = body.dict(include={"percent", "message"}, exclude_none=True)
    report = partial(reports.progress, key=caller(request).key_id, job=job_id, token=body.lease_token, report=seen)
    if not body.logs:
        return json_response(report())
    return json_response(logs.beside(report, job=job_id, lines=body.logs, first=body.logs_from))


@router.post("/{uuid:job_id}/result", response={200: AcceptedOut} | errors(403, 404, 409), summary="Deliver a result")
def report_result(request: HttpRequest, job_id: UUID, body: ResultIn) -> HttpResponse:
    """Only the lease holder; a repeat of an accepted result returns the same answer and pays once."""
    answer = reports.finish(key=caller(request).key_id, report=_report(job_id, body))
    return json_response(orjson.dumps(answer | {"receipt": answer["receipt"] | {"anchor": None}}))


@router.post("/{uuid:job_id}/fail", response={200: JobOut} | errors(403, 404, 409), summary="Give an attempt up")
def report_failure(request: HttpRequest, job_id: UUID, body: FailIn) -> HttpResponse:
    return json_response(
        reports.fail(
            key=caller(request).key_id,
            job=job_id,
            token=body.lease_token,
            code=body.code,
            message=body.message,
            retryable=body.retryable,
        )
    )


def _report(job: UUID, body: ResultIn) -> Report:
    return Report(
        job=job,
        lease_token=body.lease_token,
        statement_signature=body.statement_signature,
        output=body.output,
        output_artifact=body.output_artifact,
        metrics=body.metrics,
        claimed_ms=body.claimed_ms,
    )


def _read_report(item: dict[str, Any]) -> Report | DomainError:
    try:
        body = BatchResultIn.model_validate(item)
    except ValidationError as error:
        return from_validation([dict(e) for e in error.errors()])
    return _report(body.job_id, body)


def _check_telemetry(telemetry: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The samples as checked, to be stored; what the miner signed goes on beside them as it was sent."""
    samples = []
    for index, sample in enumerate(telemetry):
        try:
            samples.append(Telemetry.model_validate(sample).model_dump(mode="json"))
        except ValidationError as error:
            raise Invalid(
                "request.invalid",
                "a telemetry sample is not as documented",
                errors=[
                    {"loc": ["body", "telemetry", str(index), *map(str, e["loc"])], "msg": e["msg"]}
                    for e in error.errors()
                ],
            ) from error
    return samples
