"""Results on their way to the platform, kept on the disk until it has answered."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from aitbc.core.errors import DomainError, Unavailable
from apps.gpu.agent.transport import JSON


@dataclass(frozen=True)
class Outbox:
    """A file for each result. The death of the miner loses none; a power cut may, and another miner then
    does the job. Without a folder nothing is kept."""

    folder: Path | None = None

    @contextmanager
    def holding(self, job: JSON, body: JSON) -> Iterator[None]:
        """Keeps the result for as long as the platform gives no answer, whatever ends this process."""
        if self.folder is None:
            yield
            return
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        path = self.folder / f"{job['id']}.json"
        draft = path.with_suffix(".draft")
        draft.write_text(json.dumps({"job": {k: job[k] for k in ("id", "kind", "lease_token")}, "body": body}))
        draft.replace(path)
        try:
            yield
        except Unavailable:
            raise
        except DomainError:
            path.unlink()
            raise
        path.unlink()

    def kept(self) -> list[tuple[JSON, JSON]]:
        """(job, report) of each result that an earlier run of this miner could not deliver."""
        found = sorted(self.folder.glob("*.json")) if self.folder else []
        return [(kept["job"], kept["body"]) for kept in (json.loads(path.read_text()) for path in found)]
