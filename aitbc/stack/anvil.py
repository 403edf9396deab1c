"""anvil, the embedded EVM chain: one state folder per chain id, keys of its own, mining on demand.

The node holds no key: accounts are given ether, and whoever holds the mnemonic signs by himself. Blocks are
mined when a transaction arrives; `evm_setIntervalMining` and `evm_setAutomine` change that while it runs.
"""

from __future__ import annotations

import json
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import zlib
from pathlib import Path
from typing import Any

from aitbc.stack import process, rpc
from aitbc.stack.errors import StackError
from aitbc.stack.paths import REPOSITORY, Var, make_folder, recall, remember, write_atomically

CHAIN_IDS = {"ait-devnet": 31337}
_ETHER = 10**18
_FUNDS = 10_000 * _ETHER
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


class Anvil:
    """One chain. `block_time` in seconds mines at intervals; None mines on demand."""

    def __init__(
        self,
        chain_id: int,
        state_dir: Path,
        port: int | None = None,
        *,
        block_time: float | None = None,
        log: Path | None = None,
        mnemonic_file: Path | None = None,
    ) -> None:
        self.chain_id = chain_id
        self.name = "anvil" if chain_id == CHAIN_IDS["ait-devnet"] else f"anvil-{chain_id}"
        self.folder = state_dir
        self.block_time = block_time
        self.log = log or state_dir / "anvil.log"
        self.mnemonic_file = mnemonic_file or state_dir / "anvil.mnemonic"
        self._port = port

    @classmethod
    def of(cls, var: Var, *, chain_id: int) -> Anvil:
        """The chain of this id among the embedded servers of `var`."""
        return cls(
            chain_id,
            var.root / "anvil" / str(chain_id),
            log=var.log / f"anvil-{chain_id}.log",
            mnemonic_file=var.keys / "anvil.mnemonic",
        )

    @property
    def pid_file(self) -> Path:
        return self.folder / "anvil.pid"

    @property
    def keeper_file(self) -> Path:
        return self.folder / "keeper.pid"

    @property
    def memory(self) -> Path:
        return self.folder / "chain.json"

    @property
    def port(self) -> int:
        """The given port, else the remembered one, else the one the first start will try first."""
        likely = process.PORTS[zlib.crc32(str(self.folder).encode()) % len(process.PORTS)]
        return self._port or int(recall(self.memory, "chain").get("port", likely))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def address(self) -> str:
        return f"{self.url} chain {self.chain_id}"

    @property
    def notes(self) -> tuple[str, ...]:
        return ()

    @property
    def pid(self) -> int | None:
        return process.running(self.pid_file)

    @property
    def mnemonic(self) -> str:
        """The phrase of the funded accounts (m/44'/60'/0'/0/i), of this chain alone."""
        return self.mnemonic_file.read_text()

    @property
    def accounts(self) -> list[str]:
        """Addresses of the accounts that were given ether."""
        return [str(address) for address in json.loads(self._accounts_file.read_text())]

    @property
    def _accounts_file(self) -> Path:
        return self.mnemonic_file.with_suffix(".accounts")

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
        """Start the chain from its last saved state, on its remembered port or on another free one."""
        make_folder(self.folder, mode=0o700)
        self._refuse_other_chain()
        self._make_mnemonic()
        if process.running(self.keeper_file) is None:
            process.stop(self.pid_file, with_signal=signal.SIGTERM, seconds=10, force=True)
            process.start_on_free_port(self.port, lambda port: self._launch(port, owned=owned))
        self._wait()
        self._fund()

    def _refuse_other_chain(self) -> None:
        recorded = recall(self.memory, "chain").get("id", self.chain_id)
        if recorded != self.chain_id:
            raise StackError(f"{self.folder} holds chain {recorded}, not {self.chain_id}")

    def _launch(self, port: int, *, owned: bool) -> None:
        remember(self.memory, "chain", {"id": self.chain_id, "port": port})
        self._port = port
        process.start(
            [sys.executable, "-m", "aitbc.stack.keeper", *self._keeper_options(port)],
            pid_file=self.keeper_file,
            log=self.log,
            cwd=REPOSITORY,
            death_signal=signal.SIGTERM if owned else None,
        )
        self._wait()

    def _keeper_options(self, port: int) -> list[str]:
        options = ["--binary", str(binary()), "--port", str(port), "--chain-id", str(self.chain_id)]
        options += ["--folder", str(self.folder), "--log", str(self.log)]
        return options if self.block_time is None else [*options, "--block-time", str(self.block_time)]

    def _wait(self) -> None:
        process.wait_until_healthy(
            self.check, name=self.name, pid_file=self.keeper_file, log=self.log, seconds=30
        )

    def _make_mnemonic(self) -> None:
        if self.mnemonic_file.exists() and self._accounts_file.exists():
            return
        make_folder(self.mnemonic_file.parent, mode=0o700)
        made = generate_accounts()
        write_atomically(self._accounts_file, json.dumps(made["available_accounts"]), mode=0o600)
        write_atomically(self.mnemonic_file, made["wallet"]["mnemonic"], mode=0o600)

    def _fund(self) -> None:
        """Give ether to the accounts a fresh chain does not know yet."""
        for account in self.accounts:
            unused = int(self.call("eth_getTransactionCount", account, "latest"), 16) == 0
            if unused and int(self.call("eth_getBalance", account, "latest"), 16) == 0:
                self.call("anvil_setBalance", account, hex(_FUNDS))

    def stop(self) -> None:
        """Save the state and end."""
        process.stop(self.keeper_file, with_signal=signal.SIGTERM, seconds=60, force=True)
        process.stop(self.pid_file, with_signal=signal.SIGTERM, seconds=10, force=True)


def binary() -> Path:
    """The anvil program of this machine's architecture, from the locked npm packages."""
    architecture = _ARCHITECTURES.get(platform.machine(), platform.machine())
    path = REPOSITORY / "node_modules" / "@foundry-rs" / f"anvil-linux-{architecture}" / "bin" / "anvil"
    if shutil.which(str(path)) is None:
        raise StackError(f"{path} is missing: run `make setup`")
    return path


def generate_accounts() -> dict[str, Any]:
    """A new random mnemonic and its first ten addresses and keys, made by anvil itself.

    Through a file and not as an option: other users may read the command line of a process.
    """
    with tempfile.TemporaryDirectory(prefix="aitbc-") as folder:
        out = Path(folder) / "accounts.json"
        options = ["--mnemonic-random", "12", "--config-out", str(out), "--port", "0", "--quiet"]
        child = subprocess.Popen(
            [str(binary()), *options], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, umask=0o077
        )
        try:
            if not process.wait_for(lambda: _complete(out), seconds=20):
                raise StackError("anvil made no accounts within 20 s")
            made: dict[str, Any] = json.loads(out.read_text())
        finally:
            child.kill()
            child.wait()
    return made


def _complete(path: Path) -> bool:
    try:
        return bool(json.loads(path.read_text())["available_accounts"])
    except (FileNotFoundError, ValueError):
        return False
