"""Leasing work to miners, and waiting for it."""

import threading
import time
from uuid import UUID

from django.conf import settings

from aitbc.core import db
from aitbc.core.errors import NotFound

# A waiting miner occupies a thread of the web process. Most threads must stay free for those who do
# not wait; the stream process is where many can wait.
_places = threading.BoundedSemaphore(settings.POLL_WAITERS)
_RETRY_SECONDS = 0.2


def poll(*, key: UUID, most: int, kinds: list[str] | None, wait_seconds: float) -> tuple[str, bool]:
    """(JSON array of leases, whether the wait was granted). No lease is an empty array."""
    document = claim(key=key, most=most, kinds=kinds)
    if document != "[]" or wait_seconds <= 0:
        return document, True
    if not _places.acquire(blocking=False):
        return document, False
    deadline = time.monotonic() + wait_seconds
    try:
        while document == "[]" and (left := deadline - time.monotonic()) > 0:
            time.sleep(min(_RETRY_SECONDS, left))
            document = claim(key=key, most=most, kinds=kinds)
        return document, True
    finally:
        _places.release()


def claim(*, key: UUID, most: int, kinds: list[str] | None) -> str:
    """Lease up to `most` jobs to the key's miner, within its declared slots."""
    code, document = db.rows("SELECT * FROM gpu_claim(%s::uuid, %s::int, %s::text[])", (key, most, kinds))[0]
    if code == "unregistered":
        raise NotFound("miner.unregistered", "this key has not registered a miner")
    text: str = document
    return text
