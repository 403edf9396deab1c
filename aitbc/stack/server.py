"""What the embedded servers have in common."""

from __future__ import annotations

import signal
import zlib
from abc import ABC, abstractmethod
from pathlib import Path

from aitbc.stack import process
from aitbc.stack.paths import recall


class Server(ABC):
    """One server. It is recorded in `pid_file`; what it chose at its first start lies in `memory`."""

    name: str
    folder: Path
    pid_file: Path
    log: Path
    memory: Path
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

    @property
    def port(self) -> int:
        """The remembered port, else the one the first start will try first."""
        likely = process.PORTS[zlib.crc32(str(self.folder).encode()) % len(process.PORTS)]
        return int(recall(self.memory, self.name).get("port", likely))

    def wait(self, pid_file: Path | None = None) -> None:
        process.wait_until_healthy(
            self.check, name=self.name, pid_file=pid_file or self.pid_file, log=self.log, seconds=30
        )

    def stop(self) -> None:
        process.stop(self.pid_file, with_signal=signal.SIGTERM, seconds=30, force=True)
