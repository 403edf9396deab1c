"""The demonstration from beginning to end."""

import contextlib
import signal
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from aitbc import stack
from aitbc.core.errors import DomainError
from aitbc.demo import closing, money, opening, settling, working
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
    "streaming": money.stream,
    "withdrawal": money.withdraw,
    "receipts": settling.collect_receipts,
    "stores down": closing.verify_offline,
    "restart keeps data": closing.restart,
    "ledger and reserves": settling.audit,
    "proof of liabilities": money.prove_liabilities,
    "encrypted chain database": settling.check_database,
}
STOP: Final = "nothing left behind"
Tell = Callable[[str], None]


def perform(*, size: Size, keep: bool, tell: Tell) -> Report:
    """Run all steps, stop whatever happened, and leave the report in `var/demo`. `keep`, or a platform that
    ran before, has it running in the end."""
    var = current()
    var.create()
    make_folder(var.root / "demo", mode=0o700)
    # SIGTERM ends the demonstration as Ctrl-C does, and so does Ctrl-C where a shell made it be ignored.
    with locked(var.run / "demo.lock", seconds=1), _handled_by(_interrupt):
        report = Report([Step(name) for name in (*STEPS, STOP)])
        stage = Stage(var, size, State.load(var.root / "demo" / "state.json"), report, tell)
        put_back = _stop_what_runs(tell)
        try:
            _run(stage, STEPS)
        finally:
            with _handled_by(signal.SIG_IGN):  # another Ctrl-C must not leave things running
                _run(stage, {STOP: closing.stop})
                report.write(stage.folder / "report.json")
                _go_on("platform" if keep else put_back, tell)
    return report


def _run(stage: Stage, steps: Mapping[str, Callable[[Stage, Step], None]]) -> None:
    # The report has what failed; later steps stay "not reached".
    with contextlib.suppress(Failed, StackError, DomainError):
        for name, act in steps.items():
            with stage.report.step(name, tell=stage.tell) as step:
                act(stage, step)


def _stop_what_runs(tell: Tell) -> str:
    """The demonstration stops and starts the stores, so it cannot share them with a running platform. What
    is to run again in the end."""
    if platform.status() is not None:
        tell("a platform is running: it is stopped for the demonstration, and started again in the end")
        platform.down()
        return "platform"
    if any(service.running for service in stack.status()):
        tell("the stores are running: they stay up, but for the moment that needs them down")
        return "stores"
    return ""


def _go_on(with_what: str, tell: Tell) -> None:
    if with_what == "platform":
        running = platform.up(tell=tell)
        tell(f"the platform runs at {running.url}, admin {running.admin.url}; `make down` stops it")
    elif with_what == "stores":
        stack.up()


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt("the demonstration was stopped")


@contextlib.contextmanager
def _handled_by(handler: Any) -> Iterator[None]:
    before = {number: signal.signal(number, handler) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
