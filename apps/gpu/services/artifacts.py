"""Artifacts: bytes by their SHA-256 in a content-addressed folder; access by grants alone (protocols 30)."""

import hashlib
import os
import re
import secrets
from collections.abc import Callable
from pathlib import Path
from uuid import UUID

from django.conf import settings
from django.db import transaction

from aitbc.accounts import parameters
from aitbc.core import db
from aitbc.core.errors import Invalid, NotFound, TooMany
from apps.gpu.models import Artifact, ArtifactGrant

SHA256 = re.compile(r"[0-9a-f]{64}", re.ASCII)
CHUNK = 1024 * 1024
_MAY_READ = """
SELECT a.sha256 FROM gpu_artifact a WHERE a.sha256 = ANY(%s) AND (
  EXISTS (SELECT 1 FROM gpu_artifact_grant g WHERE g.artifact_id = a.sha256 AND g.user_id = %s)
  OR EXISTS (SELECT 1 FROM gpu_job j JOIN gpu_miner m ON m.id = j.miner_id AND m.owner_id = %s
              WHERE j.state IN ('leased', 'running')
                AND j.artifacts @> ARRAY[encode(a.sha256, 'hex')]::varchar[]))
"""


def path_of(sha256: str) -> Path:
    return Path(settings.ARTIFACTS_DIR) / sha256[:2] / sha256


def require_access(*, user: UUID, hashes: list[str]) -> None:
    """Each hash must be granted to the user, or be input of a job that his miner holds a lease of."""
    wanted = {digest for digest in hashes if SHA256.fullmatch(digest)}
    found = {bytes(row[0]).hex() for row in db.rows(_MAY_READ, ([bytes.fromhex(h) for h in wanted], user, user))}
    if missing := sorted(set(hashes) - found):
        raise NotFound("artifact.unknown", f"you have no artifact {missing[0]}", artifact=missing[0])


def open_artifact(*, user: UUID, sha256: str) -> Path:
    require_access(user=user, hashes=[sha256])
    return path_of(sha256)


def store(*, user: UUID, sha256: str, read: Callable[[int], bytes], length: int) -> Artifact:
    """Read the whole body, check its hash, keep it once, and grant it to whoever sent the bytes."""
    if not SHA256.fullmatch(sha256):
        raise Invalid("artifact.hash", "an artifact is named by its SHA-256 in lower-case hex")
    _check_quota(user, length)
    draft = Path(settings.ARTIFACTS_DIR) / f".draft-{secrets.token_hex(8)}"
    draft.parent.mkdir(parents=True, exist_ok=True)
    try:
        size = _receive(draft, sha256, read, length)
        target = path_of(sha256)
        target.parent.mkdir(parents=True, exist_ok=True)
        os.replace(draft, target)
    finally:
        draft.unlink(missing_ok=True)
    return _grant(user=user, sha256=sha256, size=size)


def _receive(draft: Path, sha256: str, read: Callable[[int], bytes], length: int) -> int:
    digest, size = hashlib.sha256(), 0
    with draft.open("wb") as file:
        while chunk := read(CHUNK):
            size += len(chunk)
            if size > settings.MAX_ARTIFACT_BYTES:
                raise Invalid("artifact.too_large", f"at most {settings.MAX_ARTIFACT_BYTES} bytes")
            digest.update(chunk)
            file.write(chunk)
        file.flush()
        os.fsync(file.fileno())
    if digest.hexdigest() != sha256 or size != length:
        raise Invalid("artifact.hash_mismatch", "the bytes received do not have this SHA-256")
    return size


def _check_quota(user: UUID, length: int) -> None:
    stored: int = db.value(
        """SELECT coalesce(sum(a.size), 0)::bigint FROM gpu_artifact a WHERE EXISTS (
             SELECT 1 FROM gpu_artifact_grant g
              WHERE g.artifact_id = a.sha256 AND g.user_id = %s AND g.job IS NULL)""",
        (user,),
    )
    limit = parameters.get("max_stored_bytes")
    if stored + length > limit:
        raise TooMany("artifact.quota", f"your artifacts would exceed {limit} bytes")


@transaction.atomic
def _grant(*, user: UUID, sha256: str, size: int) -> Artifact:
    artifact, _ = Artifact.objects.get_or_create(sha256="0x" + sha256, defaults={"size": size})
    ArtifactGrant.objects.get_or_create(artifact=artifact, user_id=user, job=None)
    return artifact


def grant_output(*, job: UUID, client: UUID, sha256: str) -> None:
    """The job's client may read its output."""
    ArtifactGrant.objects.get_or_create(artifact_id="0x" + sha256, user_id=client, job=job)
