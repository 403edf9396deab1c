"""The whole platform in the background: embedded servers, programs and their supervisor.

`up` starts the supervisor (`python -m aitbc.stack.platform`) and waits for it; `down` ends all of it.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from aitbc import stack
from aitbc.stack import process
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
    *, without: Sequence[str] = (), tell: Callable[[str], None] = lambda line: None, owned: bool = False
) -> Running:
    """Start what is not running and return when the web answers and every program stays up. `without` leaves
    programs out; `tell` gets each line of progress. Interrupted, it stops what it was starting. What is
    `owned` goes down in an orderly way when the calling thread ends, however it ends."""
    var = current()
    var.create()
    with locked(var.run / "platform.lock", seconds=_START_SECONDS):
        try:
            if process.running(_pid_file(var)) is None:
                _sweep(var)
                _launch(var, without=without, owned=owned)
            _follow(var, tell=tell)
        except BaseException:
            process.stop(_pid_file(var), with_signal=signal.SIGTERM, seconds=90, force=True)
            raise
    return _running(var)


def down() -> None:
    """Stop the supervisor, all programs and the embedded servers; also what a killed supervisor left."""
    var = current()
    if not var.run.exists():
        return
    process.stop(_pid_file(var), with_signal=signal.SIGTERM, seconds=90, force=True)
    _sweep(var)
    stack.down()


def status() -> Running | None:
    """The running platform; None when it is not up."""
    var = current()
    up = process.running(_pid_file(var)) is not None and _record(var).exists()
    return _running(var) if up else None


def _pid_file(var: Var) -> Path:
    return var.run / "platform.pid"


def _record(var: Var) -> Path:
    return var.run / "platform.json"


def _log(var: Var) -> Path:
    return var.log / "platform.log"


def _running(var: Var) -> Running:
    stored = json.loads(_record(var).read_text())
    return Running(url=stored["url"], admin=Admin(**stored["admin"]), processes=stored["processes"])


def _launch(var: Var, *, without: Sequence[str], owned: bool) -> None:
    leave_out = [part for name in without for part in ("--without", name)]
    _log(var).unlink(missing_ok=True)
    process.start(
        [sys.executable, "-m", "aitbc.stack.platform", *leave_out],
        pid_file=_pid_file(var),
        log=_log(var),
        cwd=REPOSITORY,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
        death_signal=signal.SIGTERM if owned else None,
    )


def _follow(var: Var, *, tell: Callable[[str], None]) -> None:
    """Pass on the supervisor's progress until it is ready; an error when it ends instead."""
    told = 0
    deadline = time.monotonic() + _START_SECONDS
    while not _record(var).exists():
        alive = process.running(_pid_file(var)) is not None
        lines = _log(var).read_text().splitlines() if _log(var).exists() else []
        for line in lines[told:]:
            tell(line)
        told = len(lines)
        if not alive or time.monotonic() > deadline:
            raise StackError(f"the platform did not start\n{process.tail(_log(var), lines=40)}")
        time.sleep(0.1)


def _sweep(var: Var) -> None:
    """End programs whose supervisor was killed and which have not followed it yet."""
    _record(var).unlink(missing_ok=True)
    for program in platform_programs(var, Ports(web=0, stream=0)):
        pid_file = var.run / f"{program.name}.pid"
        process.stop(pid_file, with_signal=program.stop_signal, seconds=program.stop_seconds, force=True)


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
        _wait_until_ready(supervisor, url=f"http://127.0.0.1:{ports.web}")
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
    chosen = {}
    for name in ("web", "stream"):
        remembered = [int(port) for port in recall(memory, name).values()]
        chosen[name] = process.free_port(*remembered)
        remember(memory, name, {"port": chosen[name]})
    return Ports(**chosen)


def _keep_stack(var: Var) -> set[int]:
    """Start embedded servers that died again; their pids."""
    if any(service.pid is None for service in stack.servers(var)):
        log.warning("starting embedded servers that ended again")
        try:
            stack.up(owned=True)
        except StackError as error:
            log.error("they did not start, trying again shortly: %s", error)
    keeper = process.running(Anvil.of(var).keeper_file)
    return {pid for pid in (*(service.pid for service in stack.servers(var)), keeper) if pid is not None}


def _prepare(var: Var, programs: Sequence[Program]) -> None:
    log.info("starting PostgreSQL, Redis and the chain")
    stack.up(owned=True)
    log.info("bringing the databases up to date")
    _together(
        lambda: _manage("migrate", "--no-input", "-v", "0"),
        lambda: _manage("collectstatic", "--no-input", "-v", "0"),
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
    _manage("deploy_contracts")
    # A real deposit that the chain worker carries out: `fund --direct` books from it.
    _manage("fund", "--treasury", "--amount", "1000000", "--once")


def _prepare_people(var: Var, *, with_miner: bool) -> None:
    _create_user(ADMIN_EMAIL, "operator", password=secret(var.keys / "admin.password"))
    if with_miner:
        _make_key(MINER_EMAIL, "miner", path=var.keys / "miner.key")


def _create_user(email: str, role: str, *, password: str) -> None:
    _manage(
        "create_user", "--email", email, "--role", role, "--if-missing", "--password-stdin", given=password
    )


def _make_key(email: str, role: str, *, path: Path) -> None:
    """An API key in a file of its own, made once: a miner is known by its key."""
    if not path.exists():
        _create_user(email, role, password=secret(path.with_suffix(".password")))
        answer = _manage(
            "create_api_key", "--user", email, "--scopes", role, "--name", "platform up", "--json"
        )
        write_atomically(path, json.loads(answer)["key"] + "\n", mode=0o600)


def _manage(*arguments: str, given: str = "") -> str:
    """Run a management command; its standard output, or an error with what it said."""
    done = subprocess.run(
        [sys.executable, "manage.py", *arguments],
        cwd=REPOSITORY,
        input=given + "\n",
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise StackError(f"manage.py {arguments[0]} failed\n{done.stdout}{done.stderr}")
    return done.stdout


def _wait_until_ready(supervisor: Supervisor, *, url: str) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline:
        if supervisor.wait(0.5):
            raise StackError("asked to stop while starting")
        failing = [watched for watched in supervisor.watched if watched.deaths >= 3]
        if failing:
            raise StackError(
                "\n".join(f"{w.program.name} does not start\n{process.tail(w.log)}" for w in failing)
            )
        if _settled(supervisor) and _answers(f"{url}/health/ready"):
            return
    raise StackError(f"{url}/health/ready did not answer 200 within {_START_SECONDS:.0f} s")


def _settled(supervisor: Supervisor) -> bool:
    now = time.monotonic()
    return all(w.pid is not None and now - w.started_at > _SETTLED for w in supervisor.watched)


def _answers(url: str) -> bool:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=5) as response:
            return bool(response.status == 200)
    except (OSError, urllib.error.URLError):
        return False


def _record_and_wait(var: Var, ports: Ports, supervisor: Supervisor) -> bool:
    """Write down what runs when that has changed; True when this process is asked to end."""
    url = f"http://127.0.0.1:{ports.web}"
    servers = {service.name: service.pid for service in stack.servers(var) if service.pid is not None}
    admin = Admin(url=f"{url}/admin/", email=ADMIN_EMAIL, password=secret(var.keys / "admin.password"))
    now = asdict(
        Running(url=url, admin=admin, processes={**supervisor.pids, **servers, "supervisor": os.getpid()})
    )
    _write_if_changed(_record(var), now)
    return supervisor.wait(1.0)


def _write_if_changed(path: Path, content: dict[str, Any]) -> None:
    text = json.dumps(content, indent=2) + "\n"
    if not path.exists() or path.read_text() != text:
        write_atomically(path, text, mode=0o600)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Supervise the platform's processes.")
    parser.add_argument("--without", action="append", default=[])
    logging.basicConfig(format="%(asctime)s %(message)s", datefmt="%H:%M:%S", level=logging.INFO)
    sys.exit(supervise(without=parser.parse_args().without))
