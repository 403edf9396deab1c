"""anvil, the embedded EVM chain: one state folder per chain id.

The node holds no key: whoever sends transactions has its own. Blocks are mined when a transaction arrives;
`evm_setIntervalMining` and `evm_setAutomine` change that while it runs.
"""

from __future__ import annotations

import platform
import shutil
import signal
import sys
from pathlib import Path
from typing import Any

from aitbc.stack import process, rpc
from aitbc.stack.errors import StackError
from aitbc.stack.paths import REPOSITORY, Var, make_folder, recall, remember
from aitbc.stack.server import TcpServer

CHAIN_ID = 31337  # of ait-devnet
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
_OPTIONS = ("--host", "127.0.0.1", "--accounts", "0", "--no-cors", "--quiet")


class Anvil(TcpServer):
    """One chain, and the keeper that saves it."""

    name = "anvil"
    cwd = REPOSITORY

    def __init__(self, chain_id: int, folder: Path, *, log: Path | None = None) -> None:
        self.chain_id, self.folder, self.memory = chain_id, folder, folder / "chain.json"
        self.pid_file, self.watched = folder / "anvil.pid", folder / "keeper.pid"
        self.log = log or folder / "anvil.log"

    @classmethod
    def of(cls, var: Var) -> Anvil:
        """The embedded chain of `var`."""
        return cls(CHAIN_ID, var.root / "anvil" / str(CHAIN_ID), log=var.log_file(f"anvil-{CHAIN_ID}"))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def address(self) -> str:
        return f"{self.url} chain {self.chain_id}"

    def call(self, method: str, *params: object) -> Any:
        return rpc.call(self.url, method, *params)

    def check(self) -> None:
        """Our process listens on the port and answers with the right chain id."""
        pid = self.pid
        if pid is None or not process.listens(pid, self.port):
            raise StackError(f"{self.name} does not listen on {self.url}")
        found = int(self.call("eth_chainId"), 16)
        if found != self.chain_id:
            raise StackError(f"{self.url} is chain {found}, not {self.chain_id}")

    def start(self, *, owned: bool = False) -> None:
        """Start the chain from its last saved state."""
        recorded = recall(self.memory, self.name).get("id", self.chain_id)
        if recorded != self.chain_id:
            raise StackError(f"{self.folder} holds chain {recorded}, not {self.chain_id}")
        make_folder(self.folder, mode=0o700)
        remember(self.memory, self.name, {"id": self.chain_id, "port": self.port})
        if process.running(self.watched) is None:
            super().stop()  # a node whose keeper died
        super().start(owned=owned)

    def command(self, port: int) -> list[str | Path]:
        node = [str(binary()), *_OPTIONS, "--port", str(port), "--chain-id", str(self.chain_id)]
        return [sys.executable, "-m", "aitbc.stack.keeper", str(port), self.folder, self.log, *node]

    def stop(self) -> None:
        """Save the state and end."""
        process.stop(self.watched, with_signal=signal.SIGTERM, seconds=60, force=True)
        super().stop()


def binary() -> Path:
    """The anvil program of this machine's architecture, from the locked npm packages."""
    architecture = _ARCHITECTURES.get(platform.machine(), platform.machine())
    path = REPOSITORY / "node_modules" / "@foundry-rs" / f"anvil-linux-{architecture}" / "bin" / "anvil"
    if shutil.which(str(path)) is None:
        raise StackError(f"{path} is missing: run `make setup`")
    return path
