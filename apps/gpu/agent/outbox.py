"""Results on their way to the platform, kept on the disk until it has answered."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from aitbc.core.errors import DomainError, Unavailable
from apps.gpu.agent.transport import JSON


@contextmanager
def holding(folder: Path | None, job: JSON, body: JSON) -> Iterator[None]:
    """A file for as long as the platform gives no answer, whatever ends this process: the death of the miner
    loses nothing. A power cut may, and another miner then does the job. Without a folder nothing is kept."""
    path = (folder or Path()) / f"{job['id']}.json"
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        draft = path.with_suffix(".draft")
        draft.write_text(json.dumps({"job": {k: job[k] for k in ("id", "kind", "lease_token")}, "body": body}))
        draft.replace(path)
    try:
        yield
    except Unavailable:
        raise
    except DomainError:
        path.unlink(missing_ok=True)
        raise
    path.unlink(missing_ok=True)


def kept(folder: Path | None) -> list[JSON]:
    """`job` and `body` of each result that an earlier run of this miner could not deliver."""
    return [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))] if folder else []
