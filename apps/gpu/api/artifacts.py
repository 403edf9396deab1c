"""`/v1/artifacts`: inputs and outputs by their SHA-256."""

import re
from pathlib import Path

from django.http import FileResponse, HttpRequest, HttpResponse, HttpResponseBase
from ninja import Router

from aitbc.core.auth import ApiKey, Principal, caller
from aitbc.core.errors import DomainError, Forbidden, Invalid
from aitbc.core.schema import errors
from apps.gpu.api.schemas import ArtifactOut
from apps.gpu.services import artifacts

router = Router(tags=["artifacts"])
_RANGE = re.compile(r"bytes=(\d+)-(\d*)", re.ASCII)


class PartyKey(ApiKey):
    """Clients and miners both keep artifacts: either scope will do."""

    def __call__(self, request: HttpRequest) -> Principal:
        try:
            return super().__call__(request)
        except Forbidden:
            return ApiKey("miner")(request)


@router.put("/{sha256}", auth=PartyKey("jobs:write"), response={201: ArtifactOut} | errors(403), summary="Upload bytes")
def put_artifact(request: HttpRequest, sha256: str) -> tuple[int, dict[str, object]]:
    """The body is always read in full and its hash checked while it streams."""
    length = request.META.get("CONTENT_LENGTH") or ""
    if not length.isdecimal():
        raise Invalid("artifact.length", "send a Content-Length")
    stored = artifacts.store(
        user=caller(request).user_id, sha256=sha256, read=request.read, length=int(length)
    )
    return 201, {"sha256": sha256, "size": stored.size}


@router.get("/{sha256}", auth=PartyKey("jobs:read"), response={200: bytes, 206: bytes} | errors(403, 404, 416), summary="Download")
def get_artifact(request: HttpRequest, sha256: str) -> HttpResponseBase:
    """Whole, or the one range asked for."""
    path = artifacts.open_artifact(user=caller(request).user_id, sha256=sha256)
    header = request.META.get("HTTP_RANGE")
    response = _part(path, header) if header else FileResponse(path.open("rb"))
    response["Content-Type"] = "application/octet-stream"
    response["Accept-Ranges"] = "bytes"
    response["ETag"] = f'"{sha256}"'
    return response


def _part(path: Path, header: str) -> HttpResponseBase:
    match, size = _RANGE.fullmatch(header), path.stat().st_size
    first = int(match[1]) if match else size
    last = min(int(match[2] or size - 1), size - 1) if match else -1
    if not match or first > last:
        error = DomainError("artifact.range", f"one range of bytes within {size}")
        error.status, error.title = 416, "Range not satisfiable"
        raise error
    with path.open("rb") as file:
        file.seek(first)
        response = HttpResponse(file.read(last - first + 1), status=206)
    response["Content-Range"] = f"bytes {first}-{last}/{size}"
    return response
