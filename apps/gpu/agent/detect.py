"""Which devices this machine really has: NVIDIA through NVML, AMD through rocm-smi, else its processor.

A machine without an accelerator says so. Nothing is assumed: what a source does not tell is None.
"""

import hashlib
import hmac
import json
import os
import shutil
import subprocess
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import psutil

Kind = Literal["cuda", "rocm", "cpu"]
MIB: Final = 1 << 20
_MACHINE_IDS: Final = ("/etc/machine-id", "/var/lib/dbus/machine-id", "/sys/class/dmi/id/product_uuid")


@dataclass(frozen=True, kw_only=True)
class Device:
    """`uuid` is stable over restarts; `cuda` is the driver's highest CUDA version; `cpus` are the
    processors that belong to a device of kind cpu; `index` is the accelerator's number on the host."""

    uuid: str
    kind: Kind
    model: str
    memory_mb: int
    cuda: str | None = None
    driver: str | None = None
    index: int = 0
    cpus: tuple[int, ...] = ()


@dataclass(frozen=True)
class Detection:
    """`absent` says for each source why it shows no device."""

    devices: list[Device]
    absent: dict[str, str]


def detect(*, cpus: Sequence[int] = (), only: Sequence[str] = ()) -> Detection:
    """The devices to offer: accelerators where there are any, else the processor.

    `cpus` offers those processors instead, so that several miners can divide a host. `only` keeps the
    accelerators with these uuids; ValueError names one that is not there.
    """
    if cpus:
        return Detection([processor(cpus)], {})
    absent: dict[str, str] = {}
    found = nvidia(absent) + amd(absent)
    if missing := set(only) - {device.uuid for device in found}:
        raise ValueError(f"no such device on this machine: {', '.join(sorted(missing))}")
    chosen = [device for device in found if not only or device.uuid in only]
    return Detection(chosen or [processor(sorted(os.sched_getaffinity(0)))], absent)


# -- NVIDIA ------------------------------------------------------------------------------------
def nvidia(absent: dict[str, str]) -> list[Device]:
    """Every card NVML shows; its reason for showing none goes into `absent`."""
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        absent["nvml"] = str(error)
        return []
    try:
        count = pynvml.nvmlDeviceGetCount()
        if count == 0:
            absent["nvml"] = "the driver shows no device"
        return [_nvidia(pynvml, index) for index in range(count)]
    finally:
        pynvml.nvmlShutdown()


def _nvidia(pynvml: Any, index: int) -> Device:
    handle = pynvml.nvmlDeviceGetHandleByIndex(index)
    version = pynvml.nvmlSystemGetCudaDriverVersion_v2()  # 12040 is CUDA 12.4
    return Device(
        uuid=pynvml.nvmlDeviceGetUUID(handle),
        kind="cuda",
        model=pynvml.nvmlDeviceGetName(handle),
        memory_mb=pynvml.nvmlDeviceGetMemoryInfo(handle).total // MIB,
        cuda=f"{version // 1000}.{version % 1000 // 10}",
        driver=pynvml.nvmlSystemGetDriverVersion(),
        index=index,
    )


# -- AMD ---------------------------------------------------------------------------------------
_ROCM_SMI: Final = ("--showproductname", "--showuniqueid", "--showmeminfo", "vram", "--showdriverversion")


def rocm_smi(*arguments: str) -> Any:
    """JSON of rocm-smi; FileNotFoundError without it, CalledProcessError or ValueError if it fails."""
    path = shutil.which("rocm-smi") or "/opt/rocm/bin/rocm-smi"
    done = subprocess.run([path, *arguments, "--json"], capture_output=True, check=True, timeout=30)
    return json.loads(done.stdout)


def amd(absent: dict[str, str]) -> list[Device]:
    """Every card rocm-smi shows."""
    try:
        cards = rocm_smi(*_ROCM_SMI)
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        absent["rocm-smi"] = f"{type(error).__name__}: {error}"
        return []
    driver = cards.pop("system", {}).get("Driver version")
    return [_amd(name, card, driver) for name, card in sorted(cards.items()) if name.startswith("card")]


def _amd(name: str, card: dict[str, str], driver: str | None) -> Device:
    return Device(
        uuid=f"GPU-{card['Unique ID'].removeprefix('0x')}",
        kind="rocm",
        model=card.get("Card Series") or card.get("Card series") or card["Device Name"],
        memory_mb=int(card["VRAM Total Memory (B)"]) // MIB,
        driver=driver,
        index=int(name.removeprefix("card")),
    )


# -- processor ---------------------------------------------------------------------------------
def processor(cpus: Sequence[int]) -> Device:
    """A share of this host's processor, with the same share of its memory; ValueError if it has none such."""
    allowed = os.sched_getaffinity(0)
    if foreign := set(cpus) - allowed:
        raise ValueError(f"this process may not use the processors {sorted(foreign)}, only {sorted(allowed)}")
    share = tuple(sorted(set(cpus)))
    memory = psutil.virtual_memory().total * len(share) // (os.cpu_count() or len(share))
    return Device(uuid=_cpu_uuid(share), kind="cpu", model=_cpu_model(), memory_mb=memory // MIB, cpus=share)


def parse_cpus(text: str) -> tuple[int, ...]:
    """`0`, `0,2` or `0-3,6` as taskset reads it; ValueError otherwise."""
    numbers: set[int] = set()
    for part in text.split(","):
        first, dash, last = part.partition("-")
        span = range(int(first), int(last if dash else first) + 1)
        if not span:
            raise ValueError(f"{part} names no processor")
        numbers.update(span)
    return tuple(sorted(numbers))


def _cpu_model() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith(("model name", "Model"))]
    return names[0] if names else os.uname().machine


def _cpu_uuid(share: Sequence[int]) -> str:
    """Differs per host and share. The machine id is keyed, since it must not be published (machine-id(5))."""
    name = "aitbc.cpu:" + ",".join(map(str, share))
    digest = hmac.new(_machine_id().encode(), name.encode(), hashlib.sha256).digest()
    return f"CPU-{uuid.UUID(bytes=digest[:16], version=4)}"


def _machine_id() -> str:
    for path in map(Path, _MACHINE_IDS):
        if path.exists() and (text := path.read_text().strip()):
            return text
    raise RuntimeError(f"no id of this machine in {', '.join(_MACHINE_IDS)}; run systemd-machine-id-setup")
