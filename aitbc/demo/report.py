"""What the demonstration found, step by step; `ok` only when every step held."""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from aitbc.demo.failure import Failed
from aitbc.stack.paths import write_atomically


@dataclass
class Step:
    """One thing that was tried; `detail` says what was seen, or why it did not hold and what log to read."""

    name: str
    ok: bool = False
    seconds: float = 0.0
    detail: str = "not reached"

    @property
    def verdict(self) -> str:
        return "ok    " if self.ok else "FAILED"


@dataclass
class Report:
    """The content of `var/demo/report.json`; figures stay at zero or None until they were measured. `steps`
    are planned: one which is never reached is seen to be missing."""

    steps: list[Step]
    jobs: int = 0
    receipts_verified: int = 0
    requeued: int = 0
    settlement: dict[str, Any] | None = None
    ledger_audit: dict[str, Any] | None = None
    reserves: dict[str, Any] | None = None
    chain_database: dict[str, Any] | None = None
    pollers: dict[str, Any] | None = None
    payouts: list[dict[str, Any]] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        return bool(self.steps) and all(step.ok for step in self.steps)

    def write(self, path: Path) -> None:
        content = {"ok": self.ok, **asdict(self)}
        write_atomically(path, json.dumps(content, indent=2) + "\n", mode=0o644)

    @contextmanager
    def step(self, name: str, *, tell: Callable[[str], None]) -> Iterator[Step]:
        """Time a planned step. It holds if its body ends; what it raises is noted and raised on."""
        step = next(step for step in self.steps if step.name == name)
        begun = time.monotonic()
        tell(f"== {name}")
        try:
            yield step
            step.ok = True
        except BaseException as error:
            step.detail = str(error) if isinstance(error, Failed) else f"{type(error).__name__}: {error}"
            raise
        finally:
            step.seconds = round(time.monotonic() - begun, 1)
            tell(f"{step.verdict} {name} ({step.seconds} s): {step.detail}")


def summary(report: Report) -> list[str]:
    """The end of the output; the last line is one JSON object."""
    width = max(len(step.name) for step in report.steps)
    lines = [f"{step.verdict} {step.name:<{width}} {step.seconds:>7.1f} s  {step.detail}" for step in report.steps]
    figures = {name: getattr(report, name) for name in ("ok", "jobs", "receipts_verified", "requeued")}
    figures["seconds"] = round(sum(step.seconds for step in report.steps), 1)
    return ["", *lines, "", json.dumps(figures)]
