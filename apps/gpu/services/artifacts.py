"""Artifacts: bytes by their SHA-256 in a content-addressed folder; access by grants alone (protocols 30)."""

import re
from pathlib import Path
from uuid import UUID

from django.conf import settings

from aitbc.core import db
from aitbc.core.errors import NotFound
from apps.gpu.models import ArtifactGrant

SHA256 = re.compile(r"[0-9a-f]{64}", re.ASCII)
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


def grant_output(*, job: UUID, client: UUID, sha256: str) -> None:
    """The job's client may read its output."""
    ArtifactGrant.objects.get_or_create(artifact_id="0x" + sha256, user_id=client, job=job)
