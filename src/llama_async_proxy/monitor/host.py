"""Processor, memory and disk of the machine, or of the container we run in."""

from __future__ import annotations

import os
import time
from pathlib import Path

import psutil
from msgspec import Struct

from llama_async_proxy.monitor.cgroup import Cgroup

_CPU_WINDOW_S = 0.2
"""Processor time is counted in ticks of 10 ms: over a shorter window the percentage is noise."""


class Memory(Struct, frozen=True):
    used_bytes: int
    total_bytes: int
    available_bytes: int


class Swap(Struct, frozen=True):
    """All 0 without swap, or where the platform does not tell."""

    used_bytes: int = 0
    total_bytes: int = 0


class Disk(Struct, frozen=True):
    """The file system of the data directory. `free_bytes` is what we may still write, which excludes blocks
    reserved for root; all 0 when it cannot be asked.
    """

    used_bytes: int = 0
    total_bytes: int = 0
    free_bytes: int = 0


class HostReading(Struct, frozen=True):
    cpu_percent: float
    """Of all cores together, 0-100, since the reading before."""
    cpu_cores: int
    """Logical."""
    load_average: tuple[float, float, float] | None
    memory: Memory
    swap: Swap
    disk: Disk


class HostProbe:
    """Reads the machine. Blocking and not thread-safe: one caller at a time, off the event loop.

    `data_dir` need not exist yet. `root` is where /proc and /sys are looked up for control groups.
    """

    def __init__(self, data_dir: Path, *, root: Path = Path("/")) -> None:
        self._data_dir = data_dir
        self._cgroup = Cgroup(root)
        self._cpu = _CpuMeter()

    def read(self) -> HostReading:
        return HostReading(
            cpu_percent=self._cpu.percent(),
            cpu_cores=psutil.cpu_count() or os.cpu_count() or 1,
            load_average=_load_average(),
            memory=self._memory(),
            swap=_swap(),
            disk=_disk(self._data_dir),
        )

    def _memory(self) -> Memory:
        """Used is total - available: what a new program cannot have. Free alone would count the page cache as used.

        Under a control group's limit, total is the limit and used the group's working set.
        """
        try:
            host = psutil.virtual_memory()
        except (OSError, RuntimeError, ValueError):
            return Memory(0, 0, 0)
        group = self._cgroup.memory()
        if group is None or group.limit_bytes >= host.total:
            return Memory(host.total - host.available, host.total, host.available)
        headroom = max(group.limit_bytes - group.used_bytes, 0)
        return Memory(group.used_bytes, group.limit_bytes, min(headroom, host.available))


class _CpuMeter:
    """Busy share between two calls, whatever threads they come from: psutil.cpu_percent keeps one state per
    thread, and calls from a pool of threads would each measure another interval.
    """

    def __init__(self) -> None:
        self._busy_s, self._total_s = _cpu_seconds()
        self._at_s = time.monotonic()
        # Until the first window has passed, the mean since boot is the best that is known.
        self._percent = 100.0 * self._busy_s / self._total_s if self._total_s else 0.0

    def percent(self) -> float:
        now_s = time.monotonic()
        if now_s - self._at_s < _CPU_WINDOW_S:
            return self._percent
        busy_s, total_s = _cpu_seconds()
        elapsed_s = total_s - self._total_s
        if elapsed_s > 0:
            self._percent = min(max(100.0 * (busy_s - self._busy_s) / elapsed_s, 0.0), 100.0)
        self._busy_s, self._total_s, self._at_s = busy_s, total_s, now_s
        return self._percent


def _cpu_seconds() -> tuple[float, float]:
    """(busy, busy and idle) seconds of all cores since boot; zeros where a sandbox forbids to read them."""
    try:
        times = psutil.cpu_times()
    except (OSError, RuntimeError, ValueError):  # Termux and hardened containers deny /proc/stat
        return 0.0, 0.0
    # Linux counts guest time in user time already, and time waiting for a disk is idle.
    total = sum(times) - getattr(times, "guest", 0.0) - getattr(times, "guest_nice", 0.0)
    idle = times.idle + getattr(times, "iowait", 0.0)
    return total - idle, total


def _load_average() -> tuple[float, float, float] | None:
    # psutil emulates it on Windows with a background thread that starts from 0: not what the name promises.
    try:
        return os.getloadavg()
    except (AttributeError, OSError):
        return None


def _swap() -> Swap:
    try:
        swap = psutil.swap_memory()
    except (OSError, RuntimeError):
        return Swap()
    return Swap(swap.used, swap.total)


def _disk(directory: Path) -> Disk:
    """Of `directory`, or of the nearest parent that exists."""
    for candidate in (directory, *directory.parents):
        try:
            usage = psutil.disk_usage(str(candidate))
        except FileNotFoundError:
            continue
        except OSError:
            break
        return Disk(usage.used, usage.total, usage.free)
    return Disk()
