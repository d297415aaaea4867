from __future__ import annotations

import json
import logging
import os
import platform
import shutil
import subprocess
import sys
import textwrap
import threading
from pathlib import Path
from typing import Any

import pytest

from llama_async_proxy.monitor.gpu import (
    NO_GPUS,
    AppleProbe,
    BoundedProbe,
    CombinedProbe,
    GpuReading,
    NvidiaProbe,
    SysfsProbe,
)
from llama_async_proxy.records.machine import GpuSample

# --- NVIDIA ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a libnvidia-ml.so.1, which is a program of ours."""
    compiler = shutil.which("cc")
    if compiler is None or sys.platform != "linux":
        pytest.skip("no C compiler to make a driver with")
    directory = tmp_path_factory.mktemp("driver")
    source = Path(__file__).with_name("fake_nvml.c")
    command = [compiler, "-shared", "-fPIC", "-o", str(directory / "libnvidia-ml.so.1"), str(source)]
    subprocess.run(command, check=True)
    return directory


def nvidia(driver: Path, tmp_path: Path, *modes: str) -> list[dict[str, Any]]:
    """What one NvidiaProbe reads while the driver goes through `modes`. In a process of its own: a library that is
    loaded once stays.
    """
    program = textwrap.dedent("""
        import json, msgspec.structs, os, pathlib, sys
        from llama_async_proxy.monitor.gpu import NvidiaProbe
        probe = NvidiaProbe(retry_s=0.0)
        readings = []
        for mode in sys.argv[1:]:
            pathlib.Path(os.environ["FAKE_NVML"]).write_text(mode)
            reading = probe.read()
            gpus = [msgspec.structs.asdict(gpu) for gpu in reading.gpus]
            readings.append({"gpus": gpus, "processes": dict(reading.process_bytes)})
        probe.close()
        print(json.dumps(readings))
    """)
    environment = {**os.environ, "LD_LIBRARY_PATH": str(driver), "FAKE_NVML": str(tmp_path / "mode")}
    output = subprocess.check_output([sys.executable, "-c", program, *modes], env=environment, text=True)
    readings: list[dict[str, Any]] = json.loads(output)
    return readings


def test_nvidia_values_come_from_nvml(driver: Path, tmp_path: Path) -> None:
    [reading] = nvidia(driver, tmp_path, "ok")
    assert reading["gpus"] == [
        {
            "index": 0,
            "name": "NVIDIA Test 0",
            "vendor": "nvidia",
            "usage_percent": 40.0,
            "memory_used_bytes": 2500,  # without what the driver reserves
            "memory_total_bytes": 8000,
            "temperature_c": 61.0,
            "power_w": 123.5,
        },
        {
            "index": 1,
            "name": "NVIDIA Test 1",
            "vendor": "nvidia",
            "usage_percent": 41.0,
            "memory_used_bytes": 3000,
            "memory_total_bytes": 8000,
            "temperature_c": 61.0,
            "power_w": 123.5,
        },
    ]


def test_process_memory_is_the_sum_over_gpus_and_unknown_stays_out(driver: Path, tmp_path: Path) -> None:
    [reading] = nvidia(driver, tmp_path, "ok")
    assert reading["processes"] == {"100": 1700, "200": 50}


def test_value_the_driver_does_not_support_is_unknown(driver: Path, tmp_path: Path) -> None:
    [reading] = nvidia(driver, tmp_path, "bare")
    assert [gpu["name"] for gpu in reading["gpus"]] == ["NVIDIA Test 0", "NVIDIA Test 1"]
    values = ("usage_percent", "memory_used_bytes", "memory_total_bytes", "temperature_c", "power_w")
    assert {gpu[value] for gpu in reading["gpus"] for value in values} == {None}
    assert reading["processes"] == {}


def test_lost_gpu_is_absent_and_the_other_stays(driver: Path, tmp_path: Path) -> None:
    before, lost, after = nvidia(driver, tmp_path, "ok", "lost", "ok")
    assert [gpu["name"] for gpu in lost["gpus"]] == ["NVIDIA Test 0"]
    assert after == before


def test_driver_that_goes_and_comes_back_is_found_again(driver: Path, tmp_path: Path) -> None:
    before, gone, still_gone, after = nvidia(driver, tmp_path, "ok", "gone", "gone", "ok")
    assert gone == still_gone == {"gpus": [], "processes": {}}
    assert after == before
    assert len(before["gpus"]) == 2


def test_driver_that_is_not_loaded_yet_is_absent(driver: Path, tmp_path: Path) -> None:
    not_yet, later = nvidia(driver, tmp_path, "gone", "ok")
    assert not_yet["gpus"] == []
    assert len(later["gpus"]) == 2


@pytest.mark.skipif(shutil.which("nvidia-smi") is not None, reason="this machine has an NVIDIA driver")
def test_machine_without_nvidia_reads_as_absent_and_never_imports_the_binding() -> None:
    program = textwrap.dedent("""
        import sys
        from llama_async_proxy.monitor.gpu import NO_GPUS, NvidiaProbe
        assert NvidiaProbe().read() == NO_GPUS
        assert "pynvml" not in sys.modules
    """)
    subprocess.run([sys.executable, "-c", program], check=True)


@pytest.mark.skipif(shutil.which("nvidia-smi") is None, reason="this machine has no NVIDIA driver")
def test_real_nvidia_gpu_has_a_name_and_memory() -> None:
    gpus = NvidiaProbe().read().gpus
    assert gpus
    for gpu in gpus:
        assert gpu.name
        assert gpu.memory_total_bytes is None or 0 <= (gpu.memory_used_bytes or 0) <= gpu.memory_total_bytes


# --- AMD and Intel --------------------------------------------------------------------------------


def card(root: Path, number: int, **files: str) -> Path:
    """A graphics card as the kernel shows it; `__` in a name stands for a slash."""
    device = root / f"sys/class/drm/card{number}/device"
    for name, text in files.items():
        path = device / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    return device


RADEON = {
    "vendor": "0x1002",
    "device": "0x744c",
    "gpu_busy_percent": "37",
    "mem_info_vram_total": "25753026560",
    "mem_info_vram_used": "1048576000",
    "hwmon__hwmon3__temp1_input": "54000",
    "hwmon__hwmon3__power1_average": "95000000",
}
PCI_IDS = """\
# a comment
1001  Kolter Electronic
\t744c  Not this one
1002  Advanced Micro Devices, Inc. [AMD/ATI]
\t7448  Navi 31 [Radeon Pro W7900]
# another
\t744c  Navi 31 [Radeon RX 7900 XTX]
\t\t1002 0e3b  RX 7900 GRE [XFX]
8086  Intel Corporation
\t56a0  DG2 [Arc A770]
"""


def test_amd_values_come_from_sysfs(tmp_path: Path) -> None:
    card(tmp_path, 0, **RADEON)
    assert SysfsProbe(tmp_path).read().gpus == (
        GpuSample(0, "AMD GPU 744c", "amd", 37.0, 1_048_576_000, 25_753_026_560, 54.0, 95.0),
    )


def test_newer_kernels_name_the_power_differently(tmp_path: Path) -> None:
    files = {name: text for name, text in RADEON.items() if "power" not in name}
    card(tmp_path, 0, **files, hwmon__hwmon0__power1_input="12500000")
    assert SysfsProbe(tmp_path).read().gpus[0].power_w == 12.5


def test_name_is_the_cards_own_or_the_one_of_the_pci_list(tmp_path: Path) -> None:
    (tmp_path / "usr/share/misc").mkdir(parents=True)
    (tmp_path / "usr/share/misc/pci.ids").write_text(PCI_IDS)
    card(tmp_path, 0, **RADEON, product_name="AMD Instinct MI300X")
    card(tmp_path, 1, **RADEON)
    card(tmp_path, 2, vendor="0x8086", device="0x56a0")
    card(tmp_path, 3, vendor="0x8086", device="0x9999")
    names = [gpu.name for gpu in SysfsProbe(tmp_path).read().gpus]
    assert names == [
        "AMD Instinct MI300X",
        "AMD Navi 31 [Radeon RX 7900 XTX]",
        "Intel DG2 [Arc A770]",
        "Intel GPU 9999",
    ]


def test_intel_without_sensors_is_present_with_unknown_values(tmp_path: Path) -> None:
    card(tmp_path, 0, vendor="0x8086", device="0x46a6")
    assert SysfsProbe(tmp_path).read().gpus == (GpuSample(0, "Intel GPU 46a6", "intel"),)


def test_only_cards_of_known_vendors_count_in_their_order(tmp_path: Path) -> None:
    card(tmp_path, 10, vendor="0x8086", device="0x0002")
    card(tmp_path, 2, vendor="0x1002", device="0x0001")
    card(tmp_path, 1, vendor="0x10de", device="0x2684")  # NVML's
    card(tmp_path, 0, vendor="0x1af4")  # a virtual machine's
    (tmp_path / "sys/class/drm/card2-HDMI-A-1").mkdir()
    (tmp_path / "sys/class/drm/renderD128").mkdir()
    assert [(gpu.index, gpu.vendor) for gpu in SysfsProbe(tmp_path).read().gpus] == [(0, "amd"), (1, "intel")]


def test_sleeping_card_has_unknown_values(tmp_path: Path) -> None:
    device = card(tmp_path, 0, **{**RADEON, "mem_info_vram_used": "n/a"})
    # Reading this one fails with an OSError, as the driver's own files do while the card sleeps.
    (device / "gpu_busy_percent").unlink()
    (device / "gpu_busy_percent").mkdir()
    [gpu] = SysfsProbe(tmp_path).read().gpus
    assert (gpu.usage_percent, gpu.memory_used_bytes) == (None, None)
    assert gpu.temperature_c == 54.0


def test_machine_without_graphics_cards_is_empty(tmp_path: Path) -> None:
    assert SysfsProbe(tmp_path).read() == NO_GPUS
    (tmp_path / "sys/class/drm").mkdir(parents=True)
    assert SysfsProbe(tmp_path).read() == NO_GPUS


@pytest.mark.skipif(platform.system() == "Darwin", reason="this is a Mac")
def test_apple_is_absent_elsewhere() -> None:
    assert AppleProbe().read() == NO_GPUS


# --- together -------------------------------------------------------------------------------------


class Steady:
    """A driver that answers the same each time."""

    def __init__(self, *names: str, **process_bytes: int) -> None:
        gpus = tuple(GpuSample(index, name, "nvidia") for index, name in enumerate(names))
        self.reading = GpuReading(gpus, {int(pid[1:]): used for pid, used in process_bytes.items()})
        self.closed = False

    def read(self) -> GpuReading:
        return self.reading

    def close(self) -> None:
        self.closed = True


class Hanging(Steady):
    """A driver that answers when `released`."""

    def __init__(self) -> None:
        super().__init__("slow")
        self.released = threading.Event()
        self.answered = threading.Event()

    def read(self) -> GpuReading:
        self.released.wait(30)
        self.answered.set()
        return self.reading


class Failing(Steady):
    def read(self) -> GpuReading:
        raise OSError("driver on fire")


def test_gpus_of_all_vendors_are_numbered_through() -> None:
    reading = CombinedProbe((Steady("a", "b", p1=5), Steady(), Steady("c", p2=6))).read()
    assert [(gpu.index, gpu.name) for gpu in reading.gpus] == [(0, "a"), (1, "b"), (2, "c")]
    assert reading.process_bytes == {1: 5, 2: 6}


def test_hanging_driver_is_absent_until_it_answers(caplog: pytest.LogCaptureFixture) -> None:
    driver = Hanging()
    probe = BoundedProbe(driver, limit_s=0.05)
    with caplog.at_level(logging.WARNING):
        assert [probe.read() for _ in range(3)] == [NO_GPUS] * 3
    assert len(caplog.records) == 1
    probe.close()
    assert not driver.closed, "closing a driver that hangs would hang as well"
    driver.released.set()
    driver.answered.wait(30)
    for thread in threading.enumerate():
        if thread.name == "gpu-probe":
            thread.join(30)
    assert probe.read() == driver.reading
    probe.close()
    assert driver.closed


def test_hanging_driver_is_asked_by_one_thread_only() -> None:
    driver = Hanging()
    probe = BoundedProbe(driver, limit_s=0.01)
    before = threading.active_count()
    for _ in range(5):
        probe.read()
    assert threading.active_count() == before + 1
    driver.released.set()


def test_failure_of_a_driver_reaches_the_caller_and_the_next_reading_is_new() -> None:
    probe = BoundedProbe(Failing())
    for _ in range(2):
        with pytest.raises(OSError, match="driver on fire"):
            probe.read()
