"""What a job writes to its log, handed out in reports: whole lines, in order, each once it was accepted."""

import threading
from dataclasses import dataclass, field
from typing import Any, Final

from apps.gpu.agent import child
from apps.gpu.agent.workspace import Workspace
from apps.gpu.agent.zygote import ROOT
from apps.gpu.joblog import ATTEMPT_BYTES, REPORT_LINES, clean

# More than the platform keeps, so that the platform is the one who says that it was too much.
READ_BYTES: Final = 2 * ATTEMPT_BYTES
_UNREAD: Final = f"[the miner reads no more than {READ_BYTES} bytes of a log]"


@dataclass
class Printed:
    """The log of a job in `workspace`; `count` lines of it are accepted. Hold `lock` from asking for
    reports until `count` was moved on: the heart and the job's own thread both tell."""

    workspace: Workspace
    count: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def reports(self, *, ended: bool) -> list[dict[str, Any]]:
        """The lines not accepted yet, as members of reports. A last line without its end is one only when
        the job has `ended`. RuntimeFailure if the job put something else in the log's place."""
        content = self.workspace.read(child.LOG, READ_BYTES) or b""
        text = content.decode(errors="replace")
        # The miner's own folders are no business of the client's.
        text = text.replace(str(self.workspace.folder), ".").replace(str(ROOT), "aitbc")
        lines = text.splitlines(keepends=True)
        if lines and not ended and not lines[-1].endswith("\n"):
            lines.pop()
        if ended and len(content) == READ_BYTES:
            lines.append(_UNREAD)
        return [
            {"logs": [clean(line.rstrip("\r\n")) for line in lines[at : at + REPORT_LINES]], "logs_from": at}
            for at in range(self.count, len(lines), REPORT_LINES)
        ]
