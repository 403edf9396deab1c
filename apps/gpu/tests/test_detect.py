import json
import os
from collections import namedtuple
from pathlib import Path
from types import SimpleNamespace

import psutil
import pynvml
import pytest

from apps.gpu.agent import detect, telemetry
from apps.gpu.agent.detect import MIB, Device
from apps.gpu.agent.telemetry import Sampler

CARDS = [("GPU-aaaa", "NVIDIA H200", 141 << 30), ("GPU-bbbb", "NVIDIA L4", 24 << 30)]
FIELDS = {"utilization", "memory_used_mb", "temperature_c", "power_w"}


@pytest.fixture
def nvml(monkeypatch):
    """The driver's library with two cards, at the boundary of its Python binding."""
    unsupported = set()

    def answer(name, value):
        def call(*arguments):
            if name in unsupported:
                raise pynvml.NVMLError_NotSupported()
            return value(*arguments) if callable(value) else value

        monkeypatch.setattr(pynvml, name, call)

    answer("nvmlInit", None)
    answer("nvmlShutdown", None)
    answer("nvmlDeviceGetCount", 2)
    answer("nvmlDeviceGetHandleByIndex", lambda index: index)
    answer("nvmlDeviceGetHandleByUUID", lambda uuid: [card[0] for card in CARDS].index(uuid))
    answer("nvmlDeviceGetUUID", lambda handle: CARDS[handle][0])
    answer("nvmlDeviceGetName", lambda handle: CARDS[handle][1])
    answer("nvmlDeviceGetMemoryInfo", lambda handle: SimpleNamespace(total=CARDS[handle][2], used=5 * MIB))
    answer("nvmlSystemGetCudaDriverVersion_v2", 12040)
    answer("nvmlSystemGetDriverVersion", "550.54")
    answer("nvmlDeviceGetUtilizationRates", SimpleNamespace(gpu=37))
    answer("nvmlDeviceGetPowerUsage", 312_500)
    answer("nvmlDeviceGetTemperature", 54)
    answer("nvmlDeviceGetCurrentClocksThrottleReasons", 0x4 | 0x1)  # the cap of its power, and an idle engine
    answer(
        "nvmlDeviceGetClockInfo", lambda handle, clock: {pynvml.NVML_CLOCK_SM: 1980, pynvml.NVML_CLOCK_MEM: 2619}[clock]
    )
    answer("nvmlDeviceGetTotalEccErrors", 3)
    return unsupported


def test_nvidia_cards_are_what_the_driver_says(nvml):
    found = detect.detect()

    common = {"kind": "cuda", "cuda": "12.4", "driver": "550.54"}
    assert found.devices == [
        Device(uuid="GPU-aaaa", model="NVIDIA H200", memory_mb=141 << 10, index=0, **common),
        Device(uuid="GPU-bbbb", model="NVIDIA L4", memory_mb=24 << 10, index=1, **common),
    ]
    assert "nvml" not in found.absent


def test_accelerators_can_be_chosen_by_uuid(nvml):
    assert [device.uuid for device in detect.detect(only=["GPU-bbbb"]).devices] == ["GPU-bbbb"]
    with pytest.raises(ValueError, match="no such device on this machine: GPU-cccc"):
        detect.detect(only=["GPU-cccc"])


def test_the_processor_can_be_offered_on_a_machine_with_cards(nvml):
    (device,) = detect.detect(cpus=[0]).devices

    assert (device.kind, device.cpus) == ("cpu", (0,))


def test_a_machine_without_a_driver_says_so_and_offers_its_processor(monkeypatch):
    def absent():
        raise pynvml.NVMLError_LibraryNotFound()

    monkeypatch.setattr(pynvml, "nvmlInit", absent)
    monkeypatch.setenv("PATH", "")

    found = detect.detect()

    assert found.absent["nvml"] == "NVML Shared Library Not Found"
    assert "rocm-smi" in found.absent
    (device,) = found.devices
    assert device.kind == "cpu"
    assert device.cpus == tuple(sorted(os.sched_getaffinity(0)))
    assert (device.cuda, device.driver) == (None, None)


def test_a_driver_without_a_card_says_so(nvml, monkeypatch):
    monkeypatch.setattr(pynvml, "nvmlDeviceGetCount", lambda: 0)
    absent = {}

    assert detect.nvidia(absent) == []
    assert absent == {"nvml": "the driver shows no device"}


ROCM = {
    "card0": {
        "Unique ID": "0x1a2b",
        "Card Series": "AMD Instinct MI300X",
        "VRAM Total Memory (B)": str(192 << 30),
        "VRAM Total Used Memory (B)": str(3 << 30),
        "GPU use (%)": "12",
        "Temperature (Sensor junction) (C)": "61.0",
        "Average Graphics Package Power (W)": "N/A",
    },
    "system": {"Driver version": "6.7.0"},
}


@pytest.fixture
def rocm_smi(tmp_path, monkeypatch):
    (tmp_path / "rocm-smi").write_text(f"#!/bin/sh\ncat <<'JSON'\n{json.dumps(ROCM)}\nJSON\n")
    (tmp_path / "rocm-smi").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")


def test_amd_cards_are_what_rocm_smi_prints(rocm_smi):
    absent = {}

    assert detect.amd(absent) == [
        Device(uuid="GPU-1a2b", kind="rocm", model="AMD Instinct MI300X", memory_mb=192 << 10, driver="6.7.0")
    ]
    assert absent == {}


def test_a_broken_rocm_smi_is_a_reason_and_no_card(tmp_path, monkeypatch):
    (tmp_path / "rocm-smi").write_text("#!/bin/sh\nexit 3\n")
    (tmp_path / "rocm-smi").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    absent = {}

    assert detect.amd(absent) == []
    assert "CalledProcessError" in absent["rocm-smi"]


def test_the_uuid_of_a_processor_is_stable_and_one_per_share():
    one, again = detect.processor([0]), detect.processor([0])
    whole = detect.processor(sorted(os.sched_getaffinity(0)))

    assert one == again
    assert one.uuid.startswith("CPU-")
    assert (whole.uuid == one.uuid) == (whole.cpus == one.cpus)
    assert Path("/etc/machine-id").read_text().strip()[:8] not in one.uuid


def test_another_host_has_another_uuid(monkeypatch):
    here = detect.processor([0]).uuid
    monkeypatch.setattr(detect, "_machine_id", lambda: "another host")

    assert detect.processor([0]).uuid != here


def test_a_host_without_an_id_is_refused(monkeypatch):
    monkeypatch.setattr(detect, "_MACHINE_IDS", ("/nonexistent",))

    with pytest.raises(RuntimeError, match="no id of this machine"):
        detect.processor([0])


def test_a_share_has_its_part_of_the_memory_and_the_real_model():
    share = detect.processor([0])

    assert share.memory_mb == psutil.virtual_memory().total // os.cpu_count() // MIB
    assert share.model in Path("/proc/cpuinfo").read_text()


def test_processors_this_process_may_not_use_are_refused():
    with pytest.raises(ValueError, match="may not use the processors"):
        detect.processor([0, 4096])


@pytest.mark.parametrize(
    ("text", "cpus"), [("0", (0,)), ("0,2", (0, 2)), ("0-3,6", (0, 1, 2, 3, 6)), ("2,0,2", (0, 2))]
)
def test_processors_are_written_as_for_taskset(text, cpus):
    assert detect.parse_cpus(text) == cpus


@pytest.mark.parametrize("text", ["", "a", "1-", "0;1", "3-1"])
def test_malformed_processors_are_refused(text):
    with pytest.raises(ValueError, match=r"invalid literal|no processor"):
        detect.parse_cpus(text)


# -- telemetry ---------------------------------------------------------------------------------
def test_nvidia_samples_are_the_drivers(nvml):
    device = detect.detect().devices[1]

    assert Sampler(device).sample() == {
        "utilization": 37.0, "memory_used_mb": 5, "temperature_c": 54.0, "power_w": 312.5,
        "clock_mhz": 1980, "memory_clock_mhz": 2619, "ecc_errors": 3, "throttle": ["power_cap"],
    }  # fmt: skip


def test_a_sensor_the_card_does_not_have_is_null(nvml):
    nvml |= {"nvmlDeviceGetPowerUsage", "nvmlDeviceGetUtilizationRates", "nvmlDeviceGetTotalEccErrors"}
    sample = Sampler(detect.detect().devices[0]).sample()

    assert (sample["power_w"], sample["utilization"], sample["ecc_errors"]) == (None, None, None)
    assert sample["temperature_c"] == 54.0


def test_amd_samples_are_what_rocm_smi_prints(rocm_smi):
    (device,) = detect.amd({})

    assert Sampler(device).sample() == {
        "utilization": 12.0, "memory_used_mb": 3 << 10, "temperature_c": 61.0, "power_w": None,
    }  # fmt: skip


def test_a_processors_utilisation_covers_its_own_share_since_the_last_sample(monkeypatch):
    times = namedtuple("times", "user idle")
    readings = iter([[times(10, 90), times(0, 0)], [times(40, 160), times(500, 0)], [times(40, 160), times(900, 0)]])
    monkeypatch.setattr(psutil, "cpu_times", lambda percpu: next(readings))
    sampler = Sampler(detect.processor([0]))

    assert sampler.sample()["utilization"] == 30.0
    assert sampler.sample()["utilization"] is None  # no time has passed on it


def test_a_processors_power_is_energy_over_time(tmp_path, monkeypatch):
    meter = tmp_path / "energy_uj"
    monkeypatch.setattr(telemetry, "_RAPL", meter)
    clock = iter([100.0, 110.0, 120.0])
    monkeypatch.setattr(telemetry, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    meter.write_text("1000000\n")
    sampler = Sampler(detect.processor([0]))

    meter.write_text("401000000\n")
    assert sampler.sample()["power_w"] == 40.0
    meter.write_text("5\n")  # the counter went round
    assert sampler.sample()["power_w"] is None


def test_a_processor_without_sensors_has_nulls(monkeypatch, tmp_path):
    monkeypatch.setattr(telemetry, "_RAPL", tmp_path / "absent")
    monkeypatch.setattr(psutil, "sensors_temperatures", dict)

    sample = Sampler(detect.processor([0])).sample()

    assert set(sample) == FIELDS
    assert (sample["power_w"], sample["temperature_c"]) == (None, None)
    assert 0 < sample["memory_used_mb"] < psutil.virtual_memory().total // MIB
