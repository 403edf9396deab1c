"""What the embedded servers have in common."""

from __future__ import annotations

import signal
import zlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path

from aitbc.stack import process
from aitbc.stack.paths import make_folder, recall, remember


class Server(ABC):
    """One server. `pid_file` records it; what it chose at its first start lies in `memory`."""

    name: str
    memory: Path
    pid_file: Path
    log: Path
    notes: tuple[str, ...] = ()

    @property
    @abstractmethod
    def address(self) -> str: ...

    @abstractmethod
    def start(self, *, owned: bool = False) -> None:
        """Start it if it does not run, and return when it is healthy; `owned` it ends with this process."""

    @abstractmethod
    def check(self) -> None:
        """Make a real request; StackError when that fails."""

    @property
    def pid(self) -> int | None:
        return process.running(self.pid_file)

    def stop(self) -> None:
        process.stop(self.pid_file, with_signal=signal.SIGTERM, seconds=30, force=True)


class TcpServer(Server):
    """A server on a loopback port. `watched` records the process that is started: itself, or its keeper."""

    folder: Path
    cwd: Path
    watched: Path

    @property
    def port(self) -> int:
        """The remembered port, else the one the first start will try first."""
        likely = process.PORTS[zlib.crc32(str(self.folder).encode()) % len(process.PORTS)]
        return int(recall(self.memory, self.name).get("port", likely))

    @abstractmethod
    def command(self, port: int) -> Sequence[str | Path]:
        """What to run to have it listen on this port."""

    def start(self, *, owned: bool = False) -> None:
        """On its remembered port, or on another free one."""
        make_folder(self.folder, mode=0o700)
        if process.running(self.watched) is None:
            process.start_on_free_port(self.port, lambda port: self._launch(port, owned=owned))
        self._wait()

    def _launch(self, port: int, *, owned: bool) -> None:
        remember(self.memory, self.name, {**recall(self.memory, self.name), "port": port})
        process.start(
            self.command(port),
            pid_file=self.watched,
            log=self.log,
            cwd=self.cwd,
            death_signal=signal.SIGTERM if owned else None,
        )
        self._wait()

    def _wait(self) -> None:
        process.wait_until_healthy(self.check, name=self.name, pid_file=self.watched, log=self.log, seconds=30)
