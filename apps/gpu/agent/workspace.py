"""Scratch folders of jobs: one each, gone with the job, and nothing left by a miner that was killed."""

import contextlib
import errno
import fcntl
import itertools
import json
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from apps.gpu.agent import child
from apps.gpu.runtimes import commands
from apps.gpu.runtimes.contract import Code, RuntimeFailure

OUTPUT_BYTES: Final = 256 << 20  # of all files that a job delivers
_PREFIX: Final = "aitbc-jobs-"
_UIDS: Final = range(64_000, 64_900)  # assigned to nobody; a miner that runs as root gives each job one


@dataclass(frozen=True)
class Workspace:
    """`artifacts` maps the SHA-256 of each fetched file to its name inside `folder`."""

    folder: Path
    uid: int | None
    artifacts: dict[str, str] = field(default_factory=dict)

    def place(self, sha256: str) -> Path:
        """Where the bytes of an artifact are to be written."""
        self.artifacts[sha256] = f"artifact-{sha256}"
        return self.folder / self.artifacts[sha256]

    def hand_over(self) -> None:
        """Gives everything in the folder to the job's uid."""
        if self.uid is not None:
            for path in (self.folder, *self.folder.iterdir()):
                os.chown(path, self.uid, self.uid, follow_symlinks=False)

    def read(self, name: str, limit: int) -> bytes | None:
        """Up to `limit` bytes of a file the job wrote, None without one. Links and pipes are refused:
        the job chose what lies there, and the miner may read more than the job."""
        try:
            descriptor = os.open(self.folder / name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        except FileNotFoundError:
            return None
        except OSError as error:
            if error.errno in (errno.ELOOP, errno.ENXIO):
                raise _no_file(name) from error
            raise
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise _no_file(name)
            with open(descriptor, "rb", closefd=False) as file:
                return file.read(limit)
        finally:
            os.close(descriptor)

    def left(self) -> Iterator[tuple[str, bytes]]:
        """(path, content) of the files in the job's folder `out`, once it has ended. Links are not followed;
        OSError where there is something else."""
        size, root = 0, self.folder / commands.OUT
        for top, _, names, folder in os.fwalk(root, follow_symlinks=False):
            for name in sorted(names):
                content = _plain(name, folder, OUTPUT_BYTES - size)
                size += len(content)
                yield os.path.relpath(os.path.join(top, name), root), content

    def write_request(self, request: dict[str, Any]) -> None:
        (self.folder / child.RESULT).unlink(missing_ok=True)
        (self.folder / child.REQUEST).write_text(json.dumps({**request, "artifacts": self.artifacts}))


def _plain(name: str, folder: int, most: int) -> bytes:
    descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=folder)
    with open(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(f"{name} is no plain file")
        if len(content := file.read(most + 1)) > most:
            raise RuntimeFailure(Code.OUTPUT_TOO_LARGE, f"the files take more than {OUTPUT_BYTES >> 20} MiB")
        return content


def _no_file(name: str) -> RuntimeFailure:
    return RuntimeFailure(Code.CRASHED, f"the job left no plain file {name}")


class Workspaces:
    """Makes workspaces below one folder of this process, which it holds a lock on."""

    def __init__(self, *, separate_uids: bool) -> None:
        _remove_abandoned()
        self.root = Path(tempfile.mkdtemp(prefix=_PREFIX))
        self.root.chmod(0o711)  # a job's uid must pass through, and must not list its neighbours
        self._lock = _lock(self.root)
        self._uids = itertools.cycle(_UIDS) if separate_uids else itertools.repeat(None)

    @contextlib.contextmanager
    def new(self) -> Iterator[Workspace]:
        """A folder for one job, removed with all its copies of the client's data at the end."""
        folder = Path(tempfile.mkdtemp(dir=self.root))
        try:
            yield Workspace(folder, next(self._uids))
        finally:
            shutil.rmtree(folder)

    def close(self) -> None:
        shutil.rmtree(self.root)
        os.close(self._lock)


def _lock(root: Path) -> int:
    descriptor = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return descriptor


def _remove_abandoned() -> None:
    """Folders whose miner is dead: their lock is free. Others, and other users' folders, stay."""
    for root in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        try:
            if root.stat().st_uid != os.geteuid():
                continue
            descriptor = _lock(root)
        except (BlockingIOError, FileNotFoundError):
            continue
        shutil.rmtree(root, ignore_errors=True)  # a second miner may be removing it at the same time
        os.close(descriptor)
