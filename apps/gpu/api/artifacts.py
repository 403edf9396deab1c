"""`/v1/artifacts`: inputs and outputs by their SHA-256."""

import re
from collections.abc import Iterator
from pathlib import Path

from django.http import FileResponse, HttpRequest, HttpResponseBase, StreamingHttpResponse
from ninja import Router, Status

from aitbc.core.auth import PartyKey, caller
from aitbc.core.errors import DomainError, Invalid
from aitbc.core.schema import errors
from apps.gpu.api.schemas import ArtifactOut
from apps.gpu.services import artifacts, uploads
from apps.gpu.services.uploads import CHUNK

router = Router(tags=["artifacts"])
# One range; other units and several ranges at once may be answered with the whole (RFC 9110, 14.2).
_RANGE = re.compile(r"bytes=(?:(\d{1,18})-(\d{0,18})|-(\d{1,18}))", re.ASCII)


BYTES: dict[str, object] = {
    "requestBody": {
        "required": True,
        "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
    }
}


@router.put(
    "/{sha256}",
    auth=PartyKey("jobs:write"),
    response={201: ArtifactOut} | errors(403),
    summary="Upload bytes",
    openapi_extra=BYTES,
)
def put_artifact(request: HttpRequest, sha256: str) -> Status[dict[str, object]]:
    """The body is always read in full and its hash checked while it streams."""
    length = length_of(request)
    uploads.store(owner=caller(request).user_id, sha256=sha256, read=request.read, length=length)
    return Status(201, {"sha256": sha256, "size": length})


def length_of(request: HttpRequest) -> int:
    """Of the body: what nobody says cannot be checked against a quota before it is read."""
    length = request.META.get("CONTENT_LENGTH") or ""
    if not length.isdecimal():
        raise Invalid("artifact.length", "send a Content-Length")
    return int(length)


@router.get(
    "/{sha256}",
    auth=PartyKey("jobs:read"),
    response={200: bytes, 206: bytes} | errors(403, 404, 416),
    summary="Download",
)
def get_artifact(request: HttpRequest, sha256: str) -> HttpResponseBase:
    """Whole, or the one range asked for."""
    path = artifacts.open_artifact(user=caller(request).user_id, sha256=sha256)
    match = _RANGE.fullmatch(request.META.get("HTTP_RANGE", ""))
    response = _part(path, match) if match else FileResponse(path.open("rb"))
    response["Content-Type"] = "application/octet-stream"
    response["Accept-Ranges"] = "bytes"
    response["ETag"] = f'"{sha256}"'
    return response


def _part(path: Path, match: re.Match[str]) -> HttpResponseBase:
    size = path.stat().st_size
    if match[3] is not None:  # the last so many bytes
        first, last = max(0, size - int(match[3])), size - 1
    else:
        first, last = int(match[1]), min(int(match[2] or size), size - 1)
    if first > last:
        raise _unsatisfiable(size)
    response = StreamingHttpResponse(_chunks(path, first, last - first + 1), status=206)
    response["Content-Length"] = str(last - first + 1)
    response["Content-Range"] = f"bytes {first}-{last}/{size}"
    return response


def _chunks(path: Path, first: int, length: int) -> Iterator[bytes]:
    with path.open("rb") as file:
        file.seek(first)
        while length > 0 and (chunk := file.read(min(CHUNK, length))):
            length -= len(chunk)
            yield chunk


def _unsatisfiable(size: int) -> DomainError:
    error = DomainError("artifact.range", f"this artifact has {size} bytes")
    error.status, error.title = 416, "Range not satisfiable"
    return error
