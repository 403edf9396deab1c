"""`/v1/uploads`: artifacts in parts, continued after a break; headers as in tus 1.0 (https://tus.io)."""

from datetime import datetime
from typing import Annotated
from uuid import UUID

from django.http import HttpRequest, HttpResponse
from ninja import Header, Router
from pydantic import Field

from aitbc.core.auth import PartyKey, caller
from aitbc.core.idempotency import idempotent
from aitbc.core.schema import Strict, errors
from apps.gpu.api.artifacts import length_of
from apps.gpu.api.schemas import ArtifactOut, Sha256
from apps.gpu.services import uploads

router = Router(tags=["artifacts"], auth=PartyKey("jobs:write"))
_BYTES = {"application/offset+octet-stream": {"schema": {"type": "string", "format": "binary"}}}


class UploadIn(Strict):
    sha256: Sha256
    size: Annotated[int, Field(ge=0, lt=2**50)]


class UploadOut(ArtifactOut):
    id: UUID
    offset: int
    finished_at: datetime | None
    expires_at: datetime


@router.post("", response={201: UploadOut} | errors(403, 409), summary="Begin an upload")
@idempotent("uploads.open")
def open_upload(request: HttpRequest, body: UploadIn) -> tuple[int, str]:
    """Its size counts against your quotas from now on, until it is finished, deleted or forgotten."""
    return 201, uploads.open_upload(owner=caller(request).user_id, sha256=body.sha256, size=body.size)


@router.api_operation(
    ["HEAD"], "/{uuid:upload_id}", response={204: None} | errors(403, 404), summary="Where to continue"
)
def head_upload(request: HttpRequest, upload_id: UUID) -> HttpResponse:
    state = uploads.shown(owner=caller(request).user_id, upload=upload_id)
    return _answer(state["offset"], {"Upload-Length": str(state["size"]), "Cache-Control": "no-store"})


@router.patch(
    "/{uuid:upload_id}",
    response={204: None} | errors(403, 404, 409),
    summary="Send bytes",
    openapi_extra={"requestBody": {"required": True, "content": _BYTES}},
)
def send_part(request: HttpRequest, upload_id: UUID, upload_offset: int = Header(..., ge=0, lt=2**50)) -> HttpResponse:
    """From `Upload-Offset` on. With the last byte the hash is checked: other bytes are refused and forgotten."""
    owner, length = caller(request).user_id, length_of(request)
    return _answer(
        uploads.append(owner=owner, upload=upload_id, offset=upload_offset, read=request.read, length=length)
    )


@router.delete("/{uuid:upload_id}", response={204: None} | errors(403, 404, 409), summary="Give an upload up")
def delete_upload(request: HttpRequest, upload_id: UUID) -> HttpResponse:
    uploads.drop(owner=caller(request).user_id, upload=upload_id)
    return HttpResponse(status=204)


def _answer(offset: int, more: dict[str, str] | None = None) -> HttpResponse:
    return HttpResponse(status=204, headers={"Upload-Offset": str(offset), "Tus-Resumable": "1.0.0", **(more or {})})
