"""Graphics processors: NVIDIA through NVML, AMD and Intel through sysfs, Apple by name.

What is not there is absent: a machine without a GPU reads as an empty tuple, a value a driver does not give as
None. Everything here blocks and belongs in a thread.
"""

from __future__ import annotations

import ctypes
import logging
import platform
import re
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol, TypeVar

from msgspec import Struct, field
from msgspec.structs import replace

from llama_async_proxy.records.machine import GpuSample

logger = logging.getLogger(__name__)

_T = TypeVar("_T")


class GpuReading(Struct, frozen=True):
    gpus: tuple[GpuSample, ...] = ()
    process_bytes: Mapping[int, int] = field(default_factory=lambda: MappingProxyType({}))
    """GPU memory by process id, over all GPUs whose driver tells. In a container with a pid namespace of its own
    some drivers give the host's ids.
    """


NO_GPUS = GpuReading()


class GpuProbe(Protocol):
    """One way to ask for GPUs. `read` is called by one thread at a time and does not raise for absent hardware."""

    def read(self) -> GpuReading: ...

    def close(self) -> None: ...


def machine_gpus(root: Path = Path("/")) -> GpuProbe:
    """Every kind of GPU this module knows, bounded in time. `root` is where /sys is looked up."""
    return BoundedProbe(CombinedProbe((NvidiaProbe(), SysfsProbe(root), AppleProbe())))


class CombinedProbe:
    """Several probes as one; GPUs are numbered through in the order of the probes."""

    def __init__(self, probes: Iterable[GpuProbe]) -> None:
        self._probes = tuple(probes)

    def read(self) -> GpuReading:
        readings = [probe.read() for probe in self._probes]
        gpus = (gpu for reading in readings for gpu in reading.gpus)
        return GpuReading(
            gpus=tuple(replace(gpu, index=index) for index, gpu in enumerate(gpus)),
            process_bytes={pid: used for reading in readings for pid, used in reading.process_bytes.items()},
        )

    def close(self) -> None:
        for probe in self._probes:
            probe.close()


class BoundedProbe:
    """Answers within `limit_s` whatever the driver does: a hung GPU blocks calls into its driver for good, and
    must not block the machine's other numbers. GPUs are absent until the driver's call has come back.
    """

    def __init__(self, probe: GpuProbe, limit_s: float = 3.0) -> None:
        self._probe = probe
        self._limit_s = limit_s
        self._pending: Future[GpuReading] | None = None
        self._late = False

    def read(self) -> GpuReading:
        if self._pending is None:
            self._pending = self._start()
        try:
            reading = self._pending.result(0 if self._late else self._limit_s)
        except TimeoutError:
            self._report_late()
            return NO_GPUS
        except Exception:
            self._pending, self._late = None, False
            raise
        self._pending, self._late = None, False
        return reading

    def close(self) -> None:
        """Leaves a driver alone that has not come back."""
        if self._pending is None:
            self._probe.close()

    def _start(self) -> Future[GpuReading]:
        pending: Future[GpuReading] = Future()
        # A daemon: the interpreter does not wait for it at exit, as it would for a thread of a pool.
        threading.Thread(target=_fulfil, args=(pending, self._probe.read), name="gpu-probe", daemon=True).start()
        return pending

    def _report_late(self) -> None:
        if not self._late:
            self._late = True
            logger.warning(
                "The GPU driver has not answered for %g s; GPU values are unknown until it does.", self._limit_s
            )


def _fulfil(future: Future[_T], call: Callable[[], _T]) -> None:
    try:
        future.set_result(call())
    except Exception as exc:  # handed over to the thread that waits
        future.set_exception(exc)


# --- NVIDIA ---------------------------------------------------------------------------------------


class NvidiaProbe:
    """NVML, loaded when its library is installed. A driver that is absent or lost is looked for again every
    `retry_s`: it may be installed, updated or reset while we run.
    """

    def __init__(self, retry_s: float = 30.0) -> None:
        self._retry_s = retry_s
        self._retry_at_s = 0.0
        self._warned = False
        self._nvml: Any = None
        """The pynvml module while initialised, else None."""

    def read(self) -> GpuReading:
        if self._nvml is None and not self._connect():
            return NO_GPUS
        try:
            reading = _nvidia_reading(self._nvml)
        except self._nvml.NVMLError as exc:
            self._lose(exc)
            return NO_GPUS
        self._warned = False
        return reading

    def close(self) -> None:
        nvml, self._nvml = self._nvml, None
        if nvml is not None:
            _known(nvml, nvml.nvmlShutdown)

    def _connect(self) -> bool:
        now_s = time.monotonic()
        if now_s < self._retry_at_s:
            return False
        self._retry_at_s = now_s + self._retry_s
        if not _nvml_installed():
            return False
        import pynvml  # 60 ms and 2 MB: only for machines that have the driver

        try:
            pynvml.nvmlInit()
        except pynvml.NVMLError as exc:
            logger.debug("NVML is installed but does not start: %s", exc)
            return False
        self._nvml = pynvml
        return True

    def _lose(self, reason: Exception) -> None:
        self.close()
        self._retry_at_s = time.monotonic() + self._retry_s
        if not self._warned:
            self._warned = True
            logger.warning("NVIDIA GPUs cannot be read: %s. Looking again every %g s.", reason, self._retry_s)


def _nvml_installed() -> bool:
    if sys.platform == "darwin":
        return False
    try:
        ctypes.CDLL("nvml.dll" if sys.platform == "win32" else "libnvidia-ml.so.1")
    except OSError:
        return False
    return True


def _nvidia_reading(nvml: Any) -> GpuReading:
    """One GPU that is lost is left out. Raises NVMLError when all are: the driver itself is gone then."""
    gpus: list[GpuSample] = []
    process_bytes: dict[int, int] = {}
    lost: Exception | None = None
    for index in range(nvml.nvmlDeviceGetCount()):
        try:
            handle = nvml.nvmlDeviceGetHandleByIndex(index)
            gpu = GpuSample(index, str(nvml.nvmlDeviceGetName(handle)), "nvidia")
        except nvml.NVMLError as exc:
            lost = exc
            continue
        gpus.append(_nvidia_gpu(nvml, handle, gpu))
        for pid, used_bytes in _nvidia_processes(nvml, handle).items():
            process_bytes[pid] = process_bytes.get(pid, 0) + used_bytes
    if lost and not gpus:
        raise lost
    return GpuReading(tuple(gpus), process_bytes)


def _nvidia_gpu(nvml: Any, handle: Any, gpu: GpuSample) -> GpuSample:
    rates = _known(nvml, nvml.nvmlDeviceGetUtilizationRates, handle)
    # Version 2 leaves out what the driver reserves for itself, as nvidia-smi does; old drivers have version 1 only.
    memory = _known(nvml, nvml.nvmlDeviceGetMemoryInfo, handle, nvml.nvmlMemory_v2) or _known(
        nvml, nvml.nvmlDeviceGetMemoryInfo, handle
    )
    celsius = _known(nvml, nvml.nvmlDeviceGetTemperature, handle, nvml.NVML_TEMPERATURE_GPU)
    milliwatts = _known(nvml, nvml.nvmlDeviceGetPowerUsage, handle)
    return replace(
        gpu,
        usage_percent=None if rates is None else float(rates.gpu),
        memory_used_bytes=None if memory is None else int(memory.used),
        memory_total_bytes=None if memory is None else int(memory.total),
        temperature_c=None if celsius is None else float(celsius),
        power_w=None if milliwatts is None else milliwatts / 1000,
    )


def _nvidia_processes(nvml: Any, handle: Any) -> dict[int, int]:
    """Bytes by pid. A process that computes and draws is in both lists with the same bytes; Windows drivers in
    display mode do not tell the bytes.
    """
    used_bytes: dict[int, int] = {}
    for listing in (nvml.nvmlDeviceGetComputeRunningProcesses, nvml.nvmlDeviceGetGraphicsRunningProcesses):
        for process in _known(nvml, listing, handle) or ():
            if process.usedGpuMemory is not None:
                used_bytes[process.pid] = max(used_bytes.get(process.pid, 0), process.usedGpuMemory)
    return used_bytes


def _known(nvml: Any, function: Callable[..., Any], *arguments: Any) -> Any:
    """What the driver answers; None when it does not know or will not tell."""
    try:
        return function(*arguments)
    except nvml.NVMLError:
        return None


# --- AMD and Intel --------------------------------------------------------------------------------

_SYSFS_VENDORS = {0x1002: "amd", 0x8086: "intel"}
_CARD = re.compile(r"card(\d+)")
"""Connectors are in the same directory as card0-HDMI-A-1."""
_PCI_IDS = ("usr/share/misc/pci.ids", "usr/share/hwdata/pci.ids")


class SysfsProbe:
    """What the kernel's drivers publish: AMD everything, Intel no load and no memory."""

    def __init__(self, root: Path = Path("/")) -> None:
        self._root = root
        self._names: dict[Path, str] = {}

    def read(self) -> GpuReading:
        return GpuReading(tuple(self._gpu(index, *card) for index, card in enumerate(self._cards())))

    def close(self) -> None:
        pass

    def _cards(self) -> Iterator[tuple[Path, str]]:
        """(device directory, vendor) in the order of the card numbers."""
        drm = self._root / "sys/class/drm"
        if not drm.is_dir():
            return
        numbers = sorted(int(match[1]) for path in drm.iterdir() if (match := _CARD.fullmatch(path.name)))
        for number in numbers:
            device = drm / f"card{number}" / "device"
            vendor = _SYSFS_VENDORS.get(_hexadecimal(device / "vendor") or 0)
            if vendor:
                yield device, vendor

    def _gpu(self, index: int, device: Path, vendor: str) -> GpuSample:
        if device not in self._names:
            self._names[device] = _pci_name(self._root, device, vendor)
        busy = _number(device / "gpu_busy_percent")
        milli_c = _first(sorted(device.glob("hwmon/hwmon*/temp1_input")))
        micro_w = _first([*device.glob("hwmon/hwmon*/power1_average"), *device.glob("hwmon/hwmon*/power1_input")])
        return GpuSample(
            index=index,
            name=self._names[device],
            vendor=vendor,
            usage_percent=None if busy is None else float(busy),
            memory_used_bytes=_number(device / "mem_info_vram_used"),
            memory_total_bytes=_number(device / "mem_info_vram_total"),
            temperature_c=None if milli_c is None else milli_c / 1000,
            power_w=None if micro_w is None else micro_w / 1_000_000,
        )


def _pci_name(root: Path, device: Path, vendor: str) -> str:
    """The card's own name, else that of the system's list of PCI devices, else its number."""
    brand = {"amd": "AMD", "intel": "Intel"}[vendor]
    if product := _text(device / "product_name"):
        return product
    device_id = _hexadecimal(device / "device")
    if device_id is None:
        return f"{brand} GPU"
    vendor_id = next(number for number, name in _SYSFS_VENDORS.items() if name == vendor)
    for listing in _PCI_IDS:
        if found := _pci_ids_entry(_text(root / listing) + "\n", vendor_id, device_id):
            return f"{brand} {found}"
    return f"{brand} GPU {device_id:04x}"


def _pci_ids_entry(listing: str, vendor_id: int, device_id: int) -> str | None:
    """Name in pci.ids: a vendor's line is followed by its devices' lines, indented by one tab."""
    vendor = re.search(rf"^{vendor_id:04x}  .*\n((?:[\t#].*\n)*)", listing, re.MULTILINE)
    device = vendor and re.search(rf"^\t{device_id:04x}  (.+)$", vendor[1], re.MULTILINE)
    return device[1] if device else None


def _text(path: Path) -> str:
    """Stripped; empty when the driver does not give it, or not now: a sleeping GPU answers with an error."""
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return ""


def _number(path: Path) -> int | None:
    text = _text(path)
    return int(text) if text.isdigit() else None


def _hexadecimal(path: Path) -> int | None:
    text = _text(path)
    return int(text, 16) if re.fullmatch(r"0x[0-9a-f]+", text) else None


def _first(paths: Iterable[Path]) -> int | None:
    return next((value for path in paths if (value := _number(path)) is not None), None)


# --- Apple ----------------------------------------------------------------------------------------


class AppleProbe:
    """The GPU of Apple's own chips, by name: load and memory need root or a slow program."""

    def __init__(self) -> None:
        name = _apple_chip() if (sys.platform, platform.machine()) == ("darwin", "arm64") else None
        self._reading = GpuReading((GpuSample(0, name, "apple"),)) if name else NO_GPUS

    def read(self) -> GpuReading:
        return self._reading

    def close(self) -> None:
        pass


def _apple_chip() -> str | None:
    """ "Apple M2 Pro"; the chip and its GPU share the name."""
    buffer = ctypes.create_string_buffer(128)
    size = ctypes.c_size_t(len(buffer))
    failed = ctypes.CDLL(None).sysctlbyname(b"machdep.cpu.brand_string", buffer, ctypes.byref(size), None, 0)
    return None if failed else buffer.value.decode(errors="replace") or None
