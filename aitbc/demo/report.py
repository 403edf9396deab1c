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


@dataclass
class Report:
    """The content of `var/demo/report.json`; figures stay at zero or None until they were measured."""

    steps: list[Step] = field(default_factory=list)
    jobs: int = 0
    receipts_verified: int = 0
    requeued: int = 0
    settlement: dict[str, Any] | None = None
    ledger_audit: dict[str, Any] | None = None
    reserves: dict[str, Any] | None = None
    pollers: dict[str, Any] | None = None
    payouts: list[dict[str, Any]] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        return bool(self.steps) and all(step.ok for step in self.steps)

    def as_json(self) -> dict[str, Any]:
        return {"ok": self.ok, **asdict(self)}

    def write(self, path: Path) -> None:
        write_atomically(path, json.dumps(self.as_json(), indent=2) + "\n", mode=0o644)

    def plan(self, names: list[str]) -> None:
        """All steps to come, so that one which is never reached is seen to be missing."""
        self.steps = [Step(name) for name in names]

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
            step.detail = _describe(error)
            raise
        finally:
            step.seconds = round(time.monotonic() - begun, 1)
            tell(f"{'ok    ' if step.ok else 'FAILED'} {name} ({step.seconds} s): {step.detail}")


def _describe(error: BaseException) -> str:
    if isinstance(error, Failed):
        return error.reason + (f"; read {error.log}" if error.log else "")
    if isinstance(error, KeyboardInterrupt):
        return "interrupted"
    return f"{type(error).__name__}: {error}"


def summary(report: Report) -> list[str]:
    """The end of the output; the last line is one JSON object."""
    width = max(len(step.name) for step in report.steps)
    lines = [
        f"{'ok    ' if step.ok else 'FAILED'} {step.name:<{width}} {step.seconds:>7.1f} s  {step.detail}"
        for step in report.steps
    ]
    figures = {
        "ok": report.ok,
        "jobs": report.jobs,
        "receipts_verified": report.receipts_verified,
        "requeued": report.requeued,
        "seconds": round(sum(step.seconds for step in report.steps), 1),
    }
    return ["", *lines, "", json.dumps(figures)]
