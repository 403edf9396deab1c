"""Containers from images that clients name: rootless Podman or Docker, with no network and no rights."""

import os
import shutil
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final
from uuid import uuid4

from apps.gpu.agent import child
from apps.gpu.agent.confine import MAX_TASKS
from apps.gpu.agent.sandbox import Limits, Outcome
from apps.gpu.agent.workspace import Workspace
from apps.gpu.runtimes import commands
from apps.gpu.runtimes.contract import invalid_input

# How each says that it runs without root, and how the container's user becomes the miner's own.
_ROOTLESS: Final = {"podman": "{{.Host.Security.Rootless}}", "docker": "{{.SecurityOptions}}"}
_USER: Final = {"podman": ["--userns=keep-id", f"--user={os.getuid()}:{os.getgid()}"], "docker": ["--user=0:0"]}
_FIXED: Final = (
    "--rm --pull=never --network=none --cap-drop=ALL --security-opt=no-new-privileges --read-only --tmpfs=/tmp "
    f"--workdir=/work --entrypoint= --env=OUT=/out --pids-limit={MAX_TASKS}"
).split()


@dataclass(frozen=True)
class Engine:
    """`program` is the path of `podman` or `docker`."""

    program: str

    @classmethod
    def find(cls) -> "Engine | None":
        """The first engine here that answers and is rootless (protocols 32)."""
        for name, asked in _ROOTLESS.items():
            if program := shutil.which(name):
                said = subprocess.run([program, "info", "--format", asked], capture_output=True, text=True, timeout=30)
                if said.returncode == 0 and ("true" in said.stdout or "name=rootless" in said.stdout):
                    return cls(program)
        return None

    def pull(self, image: str) -> None:
        """Before the job starts: waiting for an image is not billed."""
        got = subprocess.run([self.program, "pull", "-q", image], capture_output=True, text=True, timeout=600)
        if got.returncode != 0:
            raise invalid_input(f"the image cannot be had: {got.stderr.strip()[-300:]}")

    def run(self, job: Any, workspace: Workspace, limits: Limits, threads: int, stopped: Callable[[], bool]) -> Outcome:
        """As `Sandbox.run`; the container is gone when this returns or raises."""
        folder, name, engine = workspace.folder, f"aitbc-{uuid4()}", os.path.basename(self.program)
        files = {path: folder / workspace.artifacts[h] for path, h in job.get("files", {}).items()}
        commands.lay_out(folder, files)
        begun, seconds = time.monotonic(), min(limits.seconds, job.get("timeout", limits.seconds))
        bounds = [f"--memory={limits.memory_bytes}", f"--memory-swap={limits.memory_bytes}", f"--cpus={threads}"]
        mounts = [f"--volume={folder / shared}:/{shared}" for shared in (commands.WORK, commands.OUT)]
        variables = [f"--env={key}={value}" for key, value in job.get("env", {}).items()]
        options = [f"--name={name}", *_FIXED, *_USER[engine], *bounds, *mounts, *variables]
        argv = [self.program, "run", *options, job["image"], *job["command"]]
        with open(folder / child.LOG, "ab", buffering=0) as log:
            try:
                out, err = commands.follow(argv, seconds=seconds, log=log.fileno(), stopped=stopped)
            finally:
                subprocess.run([self.program, "rm", "-f", name], capture_output=True, timeout=60)
        output = {"exit_code": 0, "stdout": out, "stderr": err, "files": {}}
        metrics = {"sandbox": {"tier": engine, "network": "none"}}
        return Outcome(output, metrics, round((time.monotonic() - begun) * 1000))
