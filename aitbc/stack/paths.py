"""Where the embedded servers keep their data, sockets, logs and keys."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import secrets
import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from aitbc.core.files import write_private
from aitbc.stack.errors import StackError

REPOSITORY = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, kw_only=True)
class Var:
    """One data folder, and so one set of servers; two of them on a machine share nothing."""

    root: Path

    @property
    def run(self) -> Path:
        return self.root / "run"

    @property
    def log(self) -> Path:
        return self.root / "log"

    @property
    def keys(self) -> Path:
        return self.root / "keys"

    @property
    def memory(self) -> Path:
        """Ports and folders chosen at the first start and kept from then on."""
        return self.run / "stack.json"

    def pid_file(self, name: str) -> Path:
        return self.run / f"{name}.pid"

    def log_file(self, name: str) -> Path:
        return self.log / f"{name}.log"

    @property
    def digest(self) -> str:
        """Twelve hex digits that tell this folder from every other on the machine."""
        return hashlib.sha256(os.fsencode(self.root)).hexdigest()[:12]

    @property
    def owner(self) -> int:
        """Who started the servers here, or would."""
        return self.root.stat().st_uid if self.root.exists() else os.geteuid()

    def create(self) -> None:
        """Make the folders. They can be passed through but not listed by others: the database server
        may run as a user of its own. Keys are the owner's alone."""
        if self.owner != os.geteuid():
            raise StackError(f"{self.root} belongs to user {self.owner}: start the servers as that user")
        for path, mode in ((self.root, 0o711), (self.run, 0o711), (self.log, 0o700), (self.keys, 0o700)):
            make_folder(path, mode=mode)


def current() -> Var:
    """The folder named by AITBC_VAR (relative to the repository), else `var/` in the repository."""
    return Var(root=(REPOSITORY / (os.environ.get("AITBC_VAR") or "var")).resolve())


def make_folder(path: Path, *, mode: int) -> None:
    """Create `path` with `mode` whatever the umask. One that exists is closed if `mode` is private, else
    opened for passing only: it may be somebody's and hold other things."""
    fresh = not path.exists()
    path.mkdir(parents=True, exist_ok=True)
    info = path.stat()
    wanted = mode if fresh or not mode & 0o077 else info.st_mode & 0o7777 | mode & 0o111
    if info.st_uid == os.geteuid() and info.st_mode & 0o7777 != wanted:
        path.chmod(wanted)


def installed_package(name: str) -> Path:
    """The folder of a package whose wheel brings a server's programs."""
    package = find_spec(name)
    if package is None or package.origin is None:
        raise StackError(f"the package {name} is not installed: run `make setup`")
    return Path(package.origin).parent


def recall(memory: Path, key: str) -> dict[str, Any]:
    """What was remembered under `key`; empty when nothing was."""
    try:
        stored = json.loads(memory.read_text())
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise StackError(f"{memory} is not valid JSON ({error}); delete it to choose ports anew") from error
    return dict(stored.get(key, {}))


def remember(memory: Path, key: str, value: dict[str, Any]) -> None:
    """Keep `value` under `key`. The caller holds the lock of the folder."""
    stored = json.loads(memory.read_text()) if memory.exists() else {}
    write_atomically(memory, json.dumps(stored | {key: value}, indent=2, sort_keys=True) + "\n", mode=0o644)


def write_atomically(path: Path, text: str, *, mode: int) -> None:
    """Replace a file so that a reader, or a crash, sees the old content or the new, never half of it."""
    draft = path.with_name(f"{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "w") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    draft.replace(path)


def secret(path: Path) -> str:
    """The random token kept in `path` (0600), made at the first call; two first callers get the same."""
    if not path.exists():
        make_folder(path.parent, mode=0o700)
        with contextlib.suppress(FileExistsError):  # another process was first: its token is the one
            write_private(path, secrets.token_urlsafe(32).encode())
    return path.read_text()


@contextlib.contextmanager
def locked(path: Path, *, seconds: float) -> Iterator[None]:
    """Hold `path` as a lock between processes; it falls with the process that holds it."""
    deadline = time.monotonic() + seconds
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        while not _acquired(descriptor):
            if time.monotonic() > deadline:
                raise StackError(f"another process has held {path} for {seconds:.0f} s")
            time.sleep(0.05)
        yield
    finally:
        os.close(descriptor)


def _acquired(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
