"""What the steps of one demonstration share."""

import contextlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import psutil

from aitbc.demo.client import Api
from aitbc.demo.failure import Failed
from aitbc.demo.miners import Daemon, family
from aitbc.demo.onchain import Chain
from aitbc.demo.orders import Order
from aitbc.demo.report import Report
from aitbc.demo.state import State
from aitbc.stack import platform
from aitbc.stack.paths import Var

REGION: Final = "demo"  # of the miner daemons: only they may take jobs that ask for it
CONTEST_REGION: Final = "demo-contest"
PROVIDERS: Final = ("provider-1", "provider-2")
POLLERS: Final = 16


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
    url: str = ""
    up_at: datetime | None = None  # when the platform came up last
    since: str = ""
    apis: dict[str, Api] = field(default_factory=dict)
    daemons: list[Daemon] = field(default_factory=list)
    orders: list[Order] = field(default_factory=list)
    tiny: list[str] = field(default_factory=list)
    results: dict[str, dict[str, Any]] = field(default_factory=dict)  # of all jobs, anchored at the end
    files: list[Path] = field(default_factory=list)
    before_restart: dict[str, Any] = field(default_factory=dict)
    chain: Chain | None = None
    seen: list[psutil.Process] = field(default_factory=list)  # that must be gone in the end

    @property
    def folder(self) -> Path:
        return self.var.root / "demo"

    @property
    def client(self) -> Api:
        return self.apis["client"]

    @property
    def node(self) -> Chain:
        assert self.chain is not None  # set by the step that looks up the contracts
        return self.chain

    @property
    def job_ids(self) -> list[str]:
        return [*(order.id for order in self.orders), *self.tiny]

    def log(self, name: str) -> str:
        return str(self.var.log / name)

    def start_platform(self) -> None:
        """Its own miner stays out: the demonstration's daemons are the miners."""
        with environment("GPU_WORKER_CPUS", worker_processors()):
            self.url = platform.up(without=["miner"], tell=self.tell, owned=True).url
        self.up_at = datetime.now(UTC)

    def remember_processes(self) -> None:
        running = platform.status()
        supervisor = running.processes["supervisor"] if running else None
        self.seen += [p for p in family(supervisor) if p not in self.seen]
        for daemon in self.daemons:
            self.seen += [p for p in daemon.family() if p not in self.seen]


def processors() -> list[int]:
    """The first two processors of this machine, one per daemon."""
    allowed = sorted(os.sched_getaffinity(0))
    if len(allowed) < 2:
        raise Failed("two miners need two processors: this process may use only one")
    return allowed[:2]


def worker_processors() -> str:
    """What the platform's own worker offers: the last processor, or where there is no third one both
    together, a device of its own if not processors of its own."""
    allowed = sorted(os.sched_getaffinity(0))
    return str(allowed[-1]) if len(allowed) > 2 else ",".join(map(str, allowed))


@contextlib.contextmanager
def environment(name: str, value: str) -> Iterator[None]:
    """An environment variable for the processes started meanwhile, unless it is set already."""
    given = os.environ.get(name)
    os.environ[name] = given or value
    try:
        yield
    finally:
        del os.environ[name]
        if given is not None:
            os.environ[name] = given
