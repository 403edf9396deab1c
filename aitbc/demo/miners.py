"""Miner daemons in processes of their own: `manage.py run_miner`, each on one processor of this machine."""

import os
import signal
import sys
from dataclasses import dataclass
from pathlib import Path

import psutil

from aitbc.demo.client import JSON, Api
from aitbc.demo.failure import Failed, wait_for
from aitbc.stack import process
from aitbc.stack.paths import REPOSITORY, Var, write_atomically

PRICE = "0.01"  # AIT per device second
REGION = "demo"  # only these daemons may take jobs that ask for it


@dataclass(frozen=True, kw_only=True)
class Daemon:
    """One provider's miner; `api` carries the provider's key, which is also the miner's identity."""

    number: int
    cpu: int
    key: str
    var: Var
    api: Api

    @property
    def name(self) -> str:
        return f"demo-miner-{self.number}"

    @property
    def log(self) -> str:
        return f"log/{self.name}.log"

    @property
    def state_dir(self) -> Path:
        return self.var.root / "demo" / "miners" / str(self.number)

    @property
    def pid(self) -> int | None:
        return process.running(self.var.pid_file(self.name))

    def write_key(self) -> Path:
        path = self.var.root / "demo" / f"miner-{self.number}.key"
        write_atomically(path, self.key + "\n", mode=0o600)
        return path

    def start(self, url: str) -> None:
        """Call it from the main thread: the kernel ends the daemon when the thread that started it ends."""
        command: list[str | Path] = [sys.executable, "manage.py", "run_miner", "--url", url]
        command += ["--key-file", self.write_key(), "--state-dir", self.state_dir]
        command += ["--cpus", str(self.cpu), "--name", self.name, "--region", REGION, "--price", PRICE]
        process.start(
            command,
            pid_file=self.var.pid_file(self.name),
            log=self.var.log_file(self.name),
            cwd=REPOSITORY,
            env=os.environ | {"PYTHONUNBUFFERED": "1"},
            death_signal=signal.SIGTERM,
        )

    def ready(self) -> JSON | None:
        """The miner as the platform knows it, once it is on line and its hardware challenge is passed."""
        if self.pid is None:
            raise Failed(f"{self.name} ended by itself", log=self.log)
        response = self.api.send("GET", "/v1/miners/me", 200, 404)
        if response.status_code == 404:
            return None
        miner: JSON = response.json()
        proven = miner["devices"] and all(device["verified"] for device in miner["devices"])
        return miner if miner["state"] == "online" and proven else None

    def wait_until_ready(self) -> JSON:
        what = f"{self.name} registers and passes its hardware challenge"
        return wait_for(self.ready, seconds=120, what=what, log=self.log)

    def stop(self, with_signal: signal.Signals = signal.SIGTERM) -> None:
        """By SIGTERM an orderly end: finish what is at hand, sign off."""
        process.stop(self.var.pid_file(self.name), with_signal=with_signal, seconds=30, force=True)


def family(pid: int | None) -> list[psutil.Process]:
    """A process and all below it; empty when it is gone."""
    try:
        parent = psutil.Process(pid) if pid is not None else None
        return [parent, *parent.children(recursive=True)] if parent else []
    except psutil.NoSuchProcess:
        return []


def survivors(processes: list[psutil.Process], *, seconds: float) -> list[str]:
    """Those of `processes` that have not ended after a while, in words."""
    _, alive = psutil.wait_procs(processes, timeout=seconds)
    return [f"{p.pid} {p.name()}" for p in alive if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]
