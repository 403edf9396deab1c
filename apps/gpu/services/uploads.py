"""Uploads: bytes on their way into the store, continued where they broke off; `sql/quotas.sql` has the rules.

What `received` says lies on the disk: it is written only after the bytes are.
"""

import fcntl
import hashlib
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import FileIO
from pathlib import Path
from typing import Any
from uuid import UUID

import orjson
from django.conf import settings

from aitbc.accounts import parameters
from aitbc.core import db
from aitbc.core.errors import Conflict, Invalid
from aitbc.core.ids import uuid7
from apps.gpu.services.artifacts import path_of
from apps.trading.services.escrow import call

CHUNK = 1024 * 1024
Read = Callable[[int], bytes]


def _folder() -> Path:
    return Path(settings.ARTIFACTS_DIR) / "uploads"


def open_upload(*, owner: UUID, sha256: str, size: int) -> str:
    """Reserve `size` bytes of the owner's quotas. TooMany "artifact.quota", "upload.quota"."""
    return str(call("gpu_upload_open", uuid7(), owner, sha256, size, settings.MAX_ARTIFACT_BYTES))


def shown(*, owner: UUID, upload: UUID) -> Any:
    """How far it is, as parsed JSON; NotFound "upload.unknown"."""
    return orjson.loads(call("gpu_upload_shown", owner, upload))


def store(*, owner: UUID, sha256: str, read: Read, length: int) -> None:
    """A whole body at once: what breaks off leaves nothing."""
    upload = UUID(orjson.loads(open_upload(owner=owner, sha256=sha256, size=length))["id"])
    try:
        if append(owner=owner, upload=upload, offset=0, read=read, length=length) < length:
            raise Invalid("artifact.hash_mismatch", "the body ended before its Content-Length")
    finally:
        _remove(upload)


def append(*, owner: UUID, upload: UUID, offset: int, read: Read, length: int) -> int:
    """Bytes from `offset` on -> how many there are now. With the last one the hash is checked: the artifact
    is stored and granted, or nothing of it is kept (Invalid "artifact.hash_mismatch"). What came before a
    connection broke stays. Conflict "upload.offset", "upload.busy"."""
    shown(owner=owner, upload=upload)  # a stranger's id makes no file
    with _sole(upload) as file:
        state = shown(owner=owner, upload=upload)
        if state["finished_at"] is not None:
            return int(state["size"])
        if offset != state["offset"]:
            raise Conflict("upload.offset", f"go on from byte {state['offset']}", offset=state["offset"])
        if offset + length > state["size"]:
            raise Invalid("artifact.too_large", f"this upload has {state['size']} bytes")
        file.seek(offset)
        try:
            _receive(file, read, length)
        finally:
            os.fsync(file.fileno())
            call("gpu_upload_received", upload, file.tell())
        if file.tell() == state["size"]:
            _finish(upload, file, state["sha256"])
        return file.tell()


@contextmanager
def _sole(upload: UUID) -> Iterator[FileIO]:
    """The part's file, for one writer at a time."""
    _folder().mkdir(parents=True, exist_ok=True)
    with open(os.open(_folder() / str(upload), os.O_RDWR | os.O_CREAT, 0o644), "r+b", buffering=0) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise Conflict("upload.busy", "another request is sending this upload's bytes") from error
        yield file


def _receive(file: FileIO, read: Read, left: int) -> None:
    while left and (chunk := read(min(CHUNK, left))):
        if len(chunk) > left:
            raise Invalid("artifact.too_large", "more bytes came than were announced")
        file.write(chunk)
        left -= len(chunk)


def _finish(upload: UUID, file: FileIO, sha256: str) -> None:
    file.seek(0)
    if hashlib.file_digest(file, "sha256").hexdigest() != sha256:
        _remove(upload)
        raise Invalid("artifact.hash_mismatch", "the bytes received do not have this SHA-256")
    part, target = _folder() / str(upload), path_of(sha256)
    target.parent.mkdir(parents=True, exist_ok=True)
    # A second name first: until the grant is committed, a repeat still finds the part.
    draft = part.with_suffix(".whole")
    draft.unlink(missing_ok=True)
    os.link(part, draft)
    os.replace(draft, target)
    call("gpu_upload_finish", upload)
    part.unlink()


def drop(*, owner: UUID, upload: UUID) -> None:
    """Give its bytes back to the quota."""
    shown(owner=owner, upload=upload)
    _remove(upload)


def _remove(upload: UUID) -> None:
    db.rows("DELETE FROM gpu_upload WHERE id = %s", (upload,))
    (_folder() / str(upload)).unlink(missing_ok=True)


def forget(limit: int = 10_000) -> int:
    """Uploads that nobody went on with, and logs of jobs that ended long ago -> how many."""
    before = time.time() - parameters.get("partial_upload_seconds")
    count: int = db.value("SELECT gpu_forget(%s)", (limit,))
    for path in _folder().glob("*"):
        if path.stat().st_mtime < before:
            path.unlink(missing_ok=True)
    return count
