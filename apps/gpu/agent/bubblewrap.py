"""The tier `bubblewrap`: a job in namespaces of its own that hold the interpreter and its scratch folder."""

import os
import shutil
import sys
from pathlib import Path
from typing import Final

from apps.gpu.agent.zygote import ROOT, interpreter

SCRATCH: Final = "/job"
_CODE: Final = "/code"
_SYSTEM: Final = ("/usr", "/lib", "/lib64", "/bin", "/etc/ld.so.cache", "/etc/alternatives", "/etc/localtime")
_ACCELERATORS: Final = ("nvidia", "kfd", "dri")


def missing() -> str | None:
    """Why the tier cannot be tried here, or None."""
    return None if shutil.which("bwrap") else "bwrap (bubblewrap) is not installed"


def _mounts(folder: Path) -> list[str]:
    system = [path for path in (*_SYSTEM, sys.prefix, sys.base_prefix) if os.path.exists(path)]
    devices = [f"/dev/{name}" for name in sorted(os.listdir("/dev")) if name.startswith(_ACCELERATORS)]
    mounts = ["--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp"]
    for path in dict.fromkeys(system):
        mounts += ["--ro-bind", path, path]
    for package in ("aitbc", "apps"):  # the two packages alone: `.env` and `var/` lie beside them
        mounts += ["--ro-bind", str(ROOT / package), f"{_CODE}/{package}"]
    for device in devices:
        mounts += ["--dev-bind", device, device]
    return [*mounts, "--bind", str(folder), SCRATCH, "--chdir", SCRATCH]


def argv(folder: Path, environment: dict[str, str], limits: str) -> list[str]:
    """Command that runs the request in `folder`; `limits` is JSON for `start`."""
    variables = [part for name, value in environment.items() for part in ("--setenv", name, value)]
    return [
        shutil.which("bwrap") or "bwrap",
        *("--unshare-all", "--die-with-parent", "--new-session", "--cap-drop", "ALL"),
        *("--uid", "65534", "--gid", "65534", "--clearenv"),
        *variables,
        *_mounts(folder),
        "--",
        *interpreter(__name__, "start", limits, root=Path(_CODE)),
    ]


def start(limits: str) -> None:
    """First call inside the namespaces. bwrap has cut the network and set the uid already."""
    import json

    from apps.gpu.agent import child, confine

    folder = Path(SCRATCH)
    confine.apply_limits(**json.loads(limits))
    child.main(folder, {"network": "none", "uid": os.geteuid()})
