"""What the steps of one demonstration share."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import psutil

from aitbc.demo.client import JSON, Api
from aitbc.demo.failure import require, wait_for
from aitbc.demo.miners import Daemon, family
from aitbc.demo.onchain import Chain
from aitbc.demo.orders import Order
from aitbc.demo.report import Report
from aitbc.demo.state import State
from aitbc.stack import platform
from aitbc.stack.paths import Var

PROVIDERS: Final = ("provider-1", "provider-2")


@dataclass(frozen=True, kw_only=True)
class Size:
    """How much of everything. `per_kind` jobs of each of the three kinds, `local` for the platform's own
    Celery worker, `tiny` for the pollers; `work_seconds` of the job whose miner is killed."""

    per_kind: int
    local: int
    tiny: int
    work_seconds: float
    flipped: int


FULL: Final = Size(per_kind=12, local=2, tiny=2000, work_seconds=8, flipped=3)
SHORT: Final = Size(per_kind=3, local=1, tiny=300, work_seconds=5, flipped=1)


@dataclass
class Stage:
    """The run so far: who acts, what was ordered, what came back."""

    var: Var
    size: Size
    state: State
    report: Report
    tell: Callable[[str], None]
    node: Chain = field(init=False)  # from the step "deposit" on
    url: str = ""
    up_at: datetime = field(init=False)  # when the platform came up last
    since: str = ""
    apis: dict[str, Api] = field(default_factory=dict)
    daemons: list[Daemon] = field(default_factory=list)
    orders: list[Order] = field(default_factory=list)
    tiny: list[str] = field(default_factory=list)
    results: dict[str, JSON] = field(default_factory=dict)  # of all jobs, anchored at the end
    files: list[Path] = field(default_factory=list)
    before_restart: JSON = field(default_factory=dict)
    seen: list[psutil.Process] = field(default_factory=list)  # that must be gone in the end

    @property
    def folder(self) -> Path:
        return self.var.root / "demo"

    @property
    def client(self) -> Api:
        return self.apis["client"]

    @property
    def job_ids(self) -> list[str]:
        return [*(order.id for order in self.orders), *self.tiny]

    def start_platform(self) -> platform.Running:
        """Its own miner stays out: the demonstration's daemons are the miners."""
        cpus = os.environ.get("GPU_WORKER_CPUS") or worker_processors()
        environment = {"GPU_WORKER_CPUS": cpus}
        running = platform.up(without=["miner"], tell=self.tell, owned=True, environment=environment)
        self.url, self.up_at = running.url, datetime.now(UTC)
        return running

    def remember_processes(self) -> None:
        running = platform.status()
        supervisor = running.processes["supervisor"] if running else None
        for pid in (supervisor, *(daemon.pid for daemon in self.daemons)):
            self.seen += [process for process in family(pid) if process not in self.seen]

    def collect(self, jobs: Sequence[str], done: str, *, log: str, ready: Callable[[JSON], Any] = bool) -> None:
        """Wait until every job has a result that is `ready`; `done` says in a word what they are then."""
        missing = list(jobs)

        def look() -> JSON | None:
            found = {job: item for job, item in self.client.results(missing).items() if ready(item)}
            self.results.update(found)
            missing[:] = [job for job in missing if job not in found]
            if found:
                self.tell(f"{len(jobs) - len(missing)} of {len(jobs)} {done}")
            return None if missing else found

        wait_for(look, seconds=240, what=f"{len(jobs)} {done}", log=log, pause=1)


def processors() -> list[int]:
    """The first two processors of this machine, one per daemon."""
    allowed = sorted(os.sched_getaffinity(0))
    require(len(allowed) > 1, "two miners need two processors: this process may use only one")
    return allowed[:2]


def worker_processors() -> str:
    """What the platform's own worker offers: the last processor, or where there is no third one both
    together, a device of its own if not processors of its own."""
    allowed = sorted(os.sched_getaffinity(0))
    return str(allowed[-1]) if len(allowed) > 2 else ",".join(map(str, allowed))
