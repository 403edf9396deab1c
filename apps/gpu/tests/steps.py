"""The steps of the jobs' stories: reading answers, submitting, and letting time pass."""

from datetime import timedelta
from typing import Any
from uuid import UUID

import orjson
from django.db.models import F
from django.http import HttpResponse

from aitbc.core.testing.cast import Person, Seller, job_body
from apps.gpu.models import Job, Miner, QueuedJob


def read(response: HttpResponse) -> Any:
    """The JSON of an answer; of a streamed one too."""
    return orjson.loads(response.content)


def refused(response: HttpResponse, status: int, code: str) -> dict[str, Any]:
    """The problem document of a refusal with exactly this status and code."""
    problem = read(response)
    assert (response.status_code, problem["code"]) == (status, code), problem
    assert response["Content-Type"] == "application/problem+json"
    assert problem["status"] == status
    return problem


def submit(client: Person, **changes: Any) -> dict[str, Any]:
    response = client.post("/v1/jobs", job_body(**changes))
    assert response.status_code == 201, response.content
    return read(response)


def lease_of(client: Person, miner: Seller, **changes: Any) -> dict[str, Any]:
    """Submit a job and have `miner` lease it."""
    job = submit(client, **changes)
    (lease,) = miner.poll()
    assert lease["id"] == job["id"]
    return lease


def start(miner: Seller, lease: dict[str, Any]) -> None:
    response = miner.post(f"/v1/miners/{lease['id']}/start", {"lease_token": lease["lease_token"]})
    assert response.status_code == 200, response.content


def fail(miner: Seller, lease: dict[str, Any], code: str, **more: Any) -> HttpResponse:
    body = {"lease_token": lease["lease_token"], "code": code, "message": f"because of {code}"}
    return miner.post(f"/v1/miners/{lease['id']}/fail", body | more)


def pass_time(job: str | UUID, seconds: float) -> None:
    """The job as it would be `seconds` later, as far as the database's clock can tell."""
    back = timedelta(seconds=seconds)
    names = ("created_at", "expires_at", "leased_at", "started_at", "lease_expires_at")
    assert Job.objects.filter(pk=job).update(**{name: F(name) - back for name in names}) == 1
    QueuedJob.objects.filter(pk=job).update(expires_at=F("expires_at") - back)


def fall_silent(miner: Seller, seconds: float) -> None:
    """The miner was last heard of `seconds` ago."""
    updated = Miner.objects.filter(pk=miner.miner_id).update(
        last_seen_at=F("last_seen_at") - timedelta(seconds=seconds)
    )
    assert updated == 1
