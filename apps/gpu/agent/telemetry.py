"""Samples of a device's sensors: what the machine does not measure is None, never a guess."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import psutil

from apps.gpu.agent.detect import MIB, Device, rocm_smi

_RAPL: Final = Path("/sys/class/powercap/intel-rapl:0/energy_uj")  # AMD processors report there too
_THROTTLES: Final = {0x04: "power_cap", 0x08: "hw_slowdown", 0x20: "thermal", 0x40: "hw_thermal", 0x80: "power_brake"}
Sample = dict[str, float | int | list[str] | None]


class Sampler:
    """Samples one device; utilisation and power of a processor cover the time since the last sample."""

    def __init__(self, device: Device) -> None:
        self.device = device
        self._read: Callable[[Device], Sample] = {"cuda": _nvidia, "rocm": _amd, "cpu": self._cpu}[device.kind]
        self._times = psutil.cpu_times(percpu=True)
        self._energy = _energy()

    def sample(self) -> Sample:
        """`utilization` and `temperature_c`, `power_w` as floats, `memory_used_mb` whole; cards of NVIDIA also
        their clocks, uncorrected memory errors since the driver's start, and why they are `throttle`d."""
        return self._read(self.device)

    def _cpu(self, device: Device) -> Sample:
        return {
            "utilization": self._utilization(device),
            "memory_used_mb": psutil.virtual_memory().used // MIB,
            "temperature_c": _cpu_temperature(),
            "power_w": self._power(),
        }

    def _utilization(self, device: Device) -> float | None:
        before, self._times = self._times, psutil.cpu_times(percpu=True)
        spans = [
            [now - then for now, then in zip(self._times[cpu], before[cpu], strict=True)]
            for cpu in device.cpus
            if cpu < len(before)
        ]
        idle = before[0]._fields.index("idle")
        total = sum(sum(span) for span in spans)
        return round(100 * (1 - sum(span[idle] for span in spans) / total), 1) if total > 0 else None

    def _power(self) -> float | None:
        before, self._energy = self._energy, _energy()
        if before is None or self._energy is None:
            return None
        joules, seconds = self._energy[0] - before[0], self._energy[1] - before[1]
        return round(joules / seconds, 1) if joules >= 0 and seconds > 0 else None  # the counter wraps


def _energy() -> tuple[float, float] | None:
    """(joules used by the processor package, monotonic time) where the host lets this user read it."""
    try:
        return int(_RAPL.read_text()) / 1e6, time.monotonic()
    except OSError:
        return None


def _cpu_temperature() -> float | None:
    sensors = psutil.sensors_temperatures()
    for name in ("coretemp", "k10temp", "zenpower", "cpu_thermal"):
        if sensors.get(name):
            return float(sensors[name][0].current)
    return None


def _nvidia(device: Device) -> Sample:
    import pynvml

    pynvml.nvmlInit()
    try:
        handle = pynvml.nvmlDeviceGetHandleByUUID(device.uuid)

        def read(call: Callable[..., Any], *arguments: Any) -> Any:
            try:
                return call(handle, *arguments)
            except pynvml.NVMLError_NotSupported:
                return None

        rates = read(pynvml.nvmlDeviceGetUtilizationRates)
        memory = read(pynvml.nvmlDeviceGetMemoryInfo)
        milliwatts = read(pynvml.nvmlDeviceGetPowerUsage)
        degrees = read(pynvml.nvmlDeviceGetTemperature, pynvml.NVML_TEMPERATURE_GPU)
        reasons = read(pynvml.nvmlDeviceGetCurrentClocksThrottleReasons)
        clock = read(pynvml.nvmlDeviceGetClockInfo, pynvml.NVML_CLOCK_SM)
        memory_clock = read(pynvml.nvmlDeviceGetClockInfo, pynvml.NVML_CLOCK_MEM)
        kinds = (pynvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED, pynvml.NVML_VOLATILE_ECC)
        errors = read(pynvml.nvmlDeviceGetTotalEccErrors, *kinds)
    finally:
        pynvml.nvmlShutdown()
    return {
        "utilization": None if rates is None else float(rates.gpu),
        "memory_used_mb": None if memory is None else memory.used // MIB,
        "temperature_c": None if degrees is None else float(degrees),
        "power_w": None if milliwatts is None else milliwatts / 1000,
        "clock_mhz": clock,
        "memory_clock_mhz": memory_clock,
        "ecc_errors": errors,
        "throttle": None if reasons is None else [name for bit, name in _THROTTLES.items() if reasons & bit],
    }


def _amd(device: Device) -> Sample:
    card = rocm_smi("--showuse", "--showmeminfo", "vram", "--showtemp", "--showpower")[f"card{device.index}"]

    def number(*names: str) -> float | None:
        values = (card[name] for name in names if name in card)
        return next((float(value) for value in values if value not in ("", "N/A")), None)

    used = number("VRAM Total Used Memory (B)")
    return {
        "utilization": number("GPU use (%)"),
        "memory_used_mb": None if used is None else int(used) // MIB,
        "temperature_c": number("Temperature (Sensor edge) (C)", "Temperature (Sensor junction) (C)"),
        "power_w": number("Average Graphics Package Power (W)", "Current Socket Graphics Package Power (W)"),
    }
