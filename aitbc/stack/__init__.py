"""The embedded PostgreSQL, Redis and development chain under `var/`: `up`, `down`, `status`, `discover`.

Needs no Django settings, so that settings can ask it where the servers are.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass

from aitbc.stack import layout
from aitbc.stack.anvil import Anvil
from aitbc.stack.errors import StackError as StackError
from aitbc.stack.paths import Var, current, locked
from aitbc.stack.postgres import APP, OWNER, Postgres
from aitbc.stack.redis import Redis
from aitbc.stack.server import Server

SERVICES = ("postgres", "redis", "anvil")
_LOCK_SECONDS = 180


@dataclass(frozen=True, kw_only=True)
class Urls:
    """Where the embedded servers are, or will be once they are started."""

    database_url: str
    database_owner_url: str
    redis_url: str
    chain_rpc_url: str


@dataclass(frozen=True, kw_only=True)
class ServiceStatus:
    """`healthy` is the outcome of a real request; `detail` says why it failed."""

    name: str
    running: bool
    healthy: bool
    pid: int | None
    address: str
    detail: str
    notes: tuple[str, ...]


def servers(var: Var, names: Sequence[str] = SERVICES) -> list[Server]:
    """The named servers of this folder, in the order in which they are started."""
    unknown = set(names) - set(SERVICES)
    if unknown:
        raise StackError(f"unknown service {', '.join(sorted(unknown))}; there are {', '.join(SERVICES)}")
    return [server for server in (Postgres(var), Redis(var), Anvil.of(var)) if server.name in names]


def discover() -> Urls:
    """The addresses of the servers. Starts nothing; known before the first start, and kept by it unless a
    port turns out to be taken."""
    var = current()
    postgres = Postgres(var)
    return Urls(
        database_url=postgres.url(APP),
        database_owner_url=postgres.url(OWNER),
        redis_url=Redis(var).url,
        chain_rpc_url=Anvil.of(var).url,
    )


def up(services: Sequence[str] = SERVICES, *, owned: bool = False) -> list[ServiceStatus]:
    """Start what is not running and return once all of it is healthy; what this call started is stopped
    again if it fails or is interrupted. `owned` servers end with this process, others stay."""
    var = current()
    var.create()
    with locked(var.run / "stack.lock", seconds=_LOCK_SECONDS):
        started: list[Server] = []
        try:
            for service in servers(var, services):
                if service.pid is None:
                    started.append(service)
                service.start(owned=owned)
        except BaseException:
            for service in reversed(started):
                service.stop()
            raise
    return status(services)


def down(services: Sequence[str] = SERVICES) -> None:
    """Stop what runs, the database last; data stays."""
    var = current()
    if not var.run.exists():
        return
    var.create()
    with locked(var.run / "stack.lock", seconds=_LOCK_SECONDS):
        for service in reversed(servers(var, services)):
            service.stop()


def destroy() -> None:
    """Stop the servers and delete, for good, their data and the keys that mean nothing without it; what else
    lies in `var/` stays."""
    var = current()
    down()
    layout.remove(var)
    for folder in (var.root / "postgres", var.root / "redis", var.root / "anvil", var.run / "postgres"):
        shutil.rmtree(folder, ignore_errors=not folder.exists())
    made = [var.memory, var.root / "postgres.elsewhere"]
    keys = set(var.keys.glob("*.key")) - {var.keys / "db_encryption.key"}  # what it encrypts stays
    for file in (*made, *var.keys.glob("redis.*"), *keys):
        file.unlink(missing_ok=True)


def status(services: Sequence[str] = SERVICES) -> list[ServiceStatus]:
    """Ask each server for real."""
    return [_status(service) for service in servers(current(), services)]


def _status(service: Server) -> ServiceStatus:
    pid, detail = service.pid, ""
    try:
        if pid is None:
            raise StackError("not running")
        service.check()
    except StackError as error:
        detail = str(error)
    return ServiceStatus(
        name=service.name,
        running=pid is not None,
        healthy=not detail,
        pid=pid,
        address=service.address,
        detail=detail,
        notes=service.notes,
    )
