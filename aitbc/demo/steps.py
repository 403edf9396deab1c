"""The demonstration from beginning to end."""

import contextlib
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from aitbc import stack
from aitbc.demo import closing, opening, settling, working
from aitbc.demo.failure import Failed
from aitbc.demo.report import Report, Step
from aitbc.demo.stage import Size, Stage
from aitbc.demo.state import State
from aitbc.stack import StackError, platform
from aitbc.stack.paths import current, locked, make_folder

STEPS: Final[dict[str, Callable[[Stage, Step], None]]] = {
    "platform starts": opening.start_platform,
    "parameters": opening.change_parameters,
    "people": opening.meet_people,
    "deposit": opening.deposit,
    "no job leased twice": working.contest,
    "miners": opening.start_miners,
    "jobs": working.run_jobs,
    "kill -9 of a miner": working.kill_a_miner,
    "settlement": settling.settle,
    "payouts": settling.pay_out,
    "receipts": settling.collect_receipts,
    "stores down": closing.verify_offline,
    "restart keeps data": closing.restart,
    "ledger and reserves": settling.audit,
}
STOP: Final = "nothing left behind"
Tell = Callable[[str], None]


def perform(*, size: Size, keep: bool, tell: Tell) -> Report:
    """Run all steps, stop whatever happened, and leave the report in `var/demo`. `keep`, or a platform that
    ran before, has it running in the end."""
    var = current()
    var.create()
    make_folder(var.root / "demo", mode=0o700)
    with locked(var.run / "demo.lock", seconds=1), _interruptible():
        report = Report()
        stage = Stage(var, size, State.load(var.root / "demo" / "state.json"), report, tell)
        report.plan([*STEPS, STOP])
        ran_before = _stop_what_runs(tell)
        try:
            _run(stage)
        finally:
            with _undisturbed():
                _stop(stage)
                report.write(stage.folder / "report.json")
                _put_back(ran_before | ({"platform"} if keep else set()), tell)
    return report


def _run(stage: Stage) -> None:
    with contextlib.suppress(Failed, StackError):  # the report has it; later steps stay "not reached"
        for name, act in STEPS.items():
            with stage.report.step(name, tell=stage.tell) as step:
                act(stage, step)


def _stop(stage: Stage) -> None:
    with (
        contextlib.suppress(Failed, StackError),
        stage.report.step(STOP, tell=stage.tell) as step,
    ):
        closing.stop(stage, step)


def _stop_what_runs(tell: Tell) -> set[str]:
    """The demonstration stops and starts the stores, so it cannot share them with a running platform."""
    if platform.status() is not None:
        tell("a platform is running: it is stopped for the demonstration, and started again in the end")
        platform.down()
        return {"platform"}
    if any(service.running for service in stack.status()):
        tell("the stores are running: they stay up, but for the moment that needs them down")
        return {"stores"}
    return set()


def _put_back(wanted: set[str], tell: Tell) -> None:
    if "platform" in wanted:
        running = platform.up(tell=tell)
        tell(f"the platform runs at {running.url}, admin {running.admin.url}; `make down` stops it")
    elif "stores" in wanted:
        stack.up()


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """SIGTERM ends the demonstration as Ctrl-C does, and so does Ctrl-C where a shell made it be ignored."""
    with _handled_by(_interrupt):
        yield


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


@contextlib.contextmanager
def _undisturbed() -> Iterator[None]:
    """While things are stopped, another Ctrl-C must not leave them running."""
    with _handled_by(signal.SIG_IGN):
        yield


@contextlib.contextmanager
def _handled_by(handler: Any) -> Iterator[None]:
    before = {number: signal.signal(number, handler) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def report_path() -> Path:
    return current().root / "demo" / "report.json"
