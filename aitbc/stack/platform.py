"""The whole platform in the background: embedded servers, programs and their supervisor.

`up` starts the supervisor (`python -m aitbc.stack.platform`, followed by the names
of programs to leave out) and waits for it; `down` ends all of it.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

from aitbc import stack
from aitbc.stack import process, rpc
from aitbc.stack.anvil import Anvil
from aitbc.stack.errors import StackError
from aitbc.stack.paths import REPOSITORY, Var, current, locked, recall, remember, secret, write_atomically
from aitbc.stack.programs import Ports, Program, platform_programs
from aitbc.stack.supervisor import Supervisor

ADMIN_EMAIL = "operator@aitbc.localhost"
MINER_EMAIL = "miner@aitbc.localhost"
_START_SECONDS = 180.0
_SETTLED = 3.0  # a program that lives this long has read its settings and reached its servers
log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Admin:
    url: str
    email: str
    password: str


@dataclass(frozen=True, kw_only=True)
class Running:
    """What `var/run/platform.json` holds while the platform is ready."""

    url: str
    admin: Admin
    processes: dict[str, int]


def up(
    *,
    without: Sequence[str] = (),
    tell: Callable[[str], None] = lambda line: None,
    owned: bool = False,
    environment: Mapping[str, str] | None = None,
) -> Running:
    """Start what is not running and return when the web answers and every program stays up. `without` leaves
    programs out; `tell` gets each line of progress; `environment` is added to ours. Interrupted, it stops
    what it was starting. What is `owned` goes down in an orderly way when the calling thread ends, however
    it ends."""
    var = current()
    var.create()
    with locked(var.run / "platform.lock", seconds=_START_SECONDS):
        try:
            if process.running(var.pid_file("platform")) is None:
                _sweep(var)
                _launch(var, without=without, owned=owned, environment=environment or {})
            _follow(var, tell=tell)
        except BaseException:
            process.stop(var.pid_file("platform"), with_signal=signal.SIGTERM, seconds=90, force=True)
            raise
    return _running(var)


def down() -> None:
    """Stop the supervisor, all programs and the embedded servers; also what a killed supervisor left."""
    var = current()
    if not var.run.exists():
        return
    process.stop(var.pid_file("platform"), with_signal=signal.SIGTERM, seconds=90, force=True)
    _sweep(var)
    stack.down()


def status() -> Running | None:
    """The running platform; None when it is not up."""
    var = current()
    up = process.running(var.pid_file("platform")) is not None and _record(var).exists()
    return _running(var) if up else None


def _record(var: Var) -> Path:
    return var.run / "platform.json"


def _running(var: Var) -> Running:
    stored = json.loads(_record(var).read_text())
    return Running(url=stored["url"], admin=Admin(**stored["admin"]), processes=stored["processes"])


def _launch(var: Var, *, without: Sequence[str], owned: bool, environment: Mapping[str, str]) -> None:
    var.log_file("platform").unlink(missing_ok=True)
    process.start(
        [sys.executable, "-m", "aitbc.stack.platform", *without],
        pid_file=var.pid_file("platform"),
        log=var.log_file("platform"),
        cwd=REPOSITORY,
        env={**os.environ, **environment, "PYTHONUNBUFFERED": "1"},
        death_signal=signal.SIGTERM if owned else None,
    )


def _follow(var: Var, *, tell: Callable[[str], None]) -> None:
    """Pass on the supervisor's progress until it is ready; an error when it ends instead."""
    log_file, told = var.log_file("platform"), 0
    deadline = time.monotonic() + _START_SECONDS
    while not _record(var).exists():
        alive = process.running(var.pid_file("platform")) is not None
        lines = log_file.read_text().splitlines()
        for line in lines[told:]:
            tell(line)
        told = len(lines)
        if not alive or time.monotonic() > deadline:
            raise StackError(f"the platform did not start\n{process.tail(log_file, lines=40)}")
        time.sleep(0.1)


def _sweep(var: Var) -> None:
    """End programs whose supervisor was killed and which have not followed it yet."""
    _record(var).unlink(missing_ok=True)
    for program in platform_programs(var, Ports(web=0, stream=0)):
        process.stop(
            var.pid_file(program.name), with_signal=program.stop_signal, seconds=program.stop_seconds, force=True
        )


# -- inside the supervisor's process -------------------------------------------------------------------


def supervise(*, without: Sequence[str]) -> int:
    """Start everything, keep it running until SIGTERM, stop it."""
    var = current()
    ports = _ports(var)
    programs = [p for p in platform_programs(var, ports) if p.name not in without]
    supervisor = Supervisor(programs, var=var, keep=lambda: _keep_stack(var))
    try:
        _prepare(var, programs)
        supervisor.start()
        log.info("waiting for the programs")
        _wait_until_ready(supervisor, url=f"http://127.0.0.1:{ports.web}/health/ready")
        log.info("ready")
        while not _record_and_wait(var, ports, supervisor):
            continue
    except StackError as error:
        log.error("the platform did not start: %s", error)
        return 1
    finally:
        _record(var).unlink(missing_ok=True)
        supervisor.stop()
        stack.down()
    return 0


def _ports(var: Var) -> Ports:
    memory = var.run / "ports.json"
    chosen = {name: process.free_port(*recall(memory, name).values()) for name in ("web", "stream")}
    for name, port in chosen.items():
        remember(memory, name, {"port": port})
    return Ports(**chosen)


def _keep_stack(var: Var) -> set[int]:
    """Start embedded servers that died again; their pids."""
    if any(service.pid is None for service in stack.servers(var)):
        log.warning("starting embedded servers that ended again")
        try:
            stack.up(owned=True)
        except StackError as error:
            log.error("they did not start, trying again shortly: %s", error)
    keeper = process.running(Anvil.of(var).watched)
    return {pid for pid in (*(service.pid for service in stack.servers(var)), keeper) if pid is not None}


def _prepare(var: Var, programs: Sequence[Program]) -> None:
    log.info("starting PostgreSQL, Redis and the chain")
    stack.up(owned=True)
    log.info("bringing the databases up to date")
    _together(
        lambda: process.manage("migrate", "--no-input", "-v", "0"),
        lambda: process.manage("collectstatic", "--no-input", "-v", "0"),
    )
    log.info("deploying the contracts")
    with_miner = any(program.name == "miner" for program in programs)
    _together(_prepare_chain, lambda: _prepare_people(var, with_miner=with_miner))


def _together(*parts: Callable[[], object]) -> None:
    """Most of a command's time is its start: two at once take hardly longer than one."""
    with ThreadPoolExecutor(len(parts)) as pool:
        for part in [pool.submit(part) for part in parts]:
            part.result()


def _prepare_chain() -> None:
    process.manage("deploy_contracts")
    # A real deposit that the chain worker carries out: `fund --direct` books from it.
    process.manage("fund", "--treasury", "--amount", "1000000", "--once")


def _prepare_people(var: Var, *, with_miner: bool) -> None:
    """The admin, and the miner with an API key that is made once: a miner is known by its key."""
    _create_user(ADMIN_EMAIL, "operator", password_file=var.keys / "admin.password")
    key_file = var.keys / "miner.key"
    if with_miner and not key_file.exists():
        _create_user(MINER_EMAIL, "miner", password_file=var.keys / "miner.password")
        options = ("--user", MINER_EMAIL, "--scopes", "miner", "--name", "platform up", "--json")
        made = json.loads(process.manage("create_api_key", *options).stdout)
        write_atomically(key_file, made["key"] + "\n", mode=0o600)


def _create_user(email: str, role: str, *, password_file: Path) -> None:
    options = ("--email", email, "--role", role, "--if-missing", "--password-stdin")
    process.manage("create_user", *options, given=secret(password_file) + "\n")


def _wait_until_ready(supervisor: Supervisor, *, url: str) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline:
        if supervisor.wait(0.5):
            raise StackError("asked to stop while starting")
        failing = [watched for watched in supervisor.watched if watched.deaths >= 3]
        if failing:
            raise StackError("\n".join(f"{w.program.name} does not start\n{process.tail(w.log)}" for w in failing))
        settled = time.monotonic() - _SETTLED
        if all(w.pid and w.started_at < settled for w in supervisor.watched) and _answers(url):
            return
    raise StackError(f"{url} did not answer 200 within {_START_SECONDS:.0f} s")


def _answers(url: str) -> bool:
    try:
        with rpc.opener.open(url, timeout=5) as response:
            return bool(response.status == 200)
    except OSError:
        return False


def _record_and_wait(var: Var, ports: Ports, supervisor: Supervisor) -> bool:
    """Write down what runs when that has changed; True when this process is asked to end."""
    url = f"http://127.0.0.1:{ports.web}"
    servers = {service.name: service.pid for service in stack.servers(var) if service.pid is not None}
    admin = Admin(url=f"{url}/admin/", email=ADMIN_EMAIL, password=secret(var.keys / "admin.password"))
    processes = {**supervisor.pids, **servers, "supervisor": os.getpid()}
    content = json.dumps(asdict(Running(url=url, admin=admin, processes=processes)), indent=2) + "\n"
    if not _record(var).exists() or _record(var).read_text() != content:
        write_atomically(_record(var), content, mode=0o600)
    return supervisor.wait(1.0)


if __name__ == "__main__":
    logging.basicConfig(format="%(asctime)s %(message)s", datefmt="%H:%M:%S", level=logging.INFO)
    sys.exit(supervise(without=sys.argv[1:]))
