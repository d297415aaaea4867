from __future__ import annotations

import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from llama_async_proxy.monitor.host import HostProbe

NO_CGROUPS = Path("/nonexistent")


def busy(seconds: float) -> None:
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass


def test_reading_agrees_with_the_machine(tmp_path: Path) -> None:
    reading = HostProbe(tmp_path, root=NO_CGROUPS).read()
    assert reading.cpu_cores == psutil.cpu_count()
    assert 0 <= reading.cpu_percent <= 100
    assert reading.memory.total_bytes == psutil.virtual_memory().total
    assert reading.memory.used_bytes + reading.memory.available_bytes == reading.memory.total_bytes
    assert reading.swap.total_bytes == psutil.swap_memory().total
    status = os.statvfs(tmp_path)
    assert reading.disk.total_bytes == status.f_blocks * status.f_frsize
    assert 0 < reading.disk.free_bytes <= reading.disk.total_bytes
    assert reading.load_average is not None
    assert all(load >= 0 for load in reading.load_average)


def test_busy_processor_shows_whatever_thread_reads_it(tmp_path: Path) -> None:
    probe = HostProbe(tmp_path, root=NO_CGROUPS)
    busy(0.3)
    with ThreadPoolExecutor(1) as first:
        after_work = first.submit(probe.read).result()
    # One busy core is at least this share of the machine, however idle the others are.
    assert after_work.cpu_percent >= 0.5 * 100 / after_work.cpu_cores


def test_readings_in_quick_succession_share_one_percentage(tmp_path: Path) -> None:
    probe = HostProbe(tmp_path, root=NO_CGROUPS)
    busy(0.25)
    assert probe.read().cpu_percent == probe.read().cpu_percent


def limited(root: Path, limit: int, used: int) -> Path:
    group = root / "sys/fs/cgroup"
    group.mkdir(parents=True)
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text("0::/\n")
    (group / "memory.max").write_text(str(limit))
    (group / "memory.current").write_text(str(used))
    return root


def test_container_limit_is_the_total(tmp_path: Path) -> None:
    memory = HostProbe(tmp_path, root=limited(tmp_path / "root", 64 << 20, 48 << 20)).read().memory
    assert (memory.total_bytes, memory.used_bytes, memory.available_bytes) == (64 << 20, 48 << 20, 16 << 20)


def test_limit_above_the_machine_changes_nothing(tmp_path: Path) -> None:
    total = psutil.virtual_memory().total
    memory = HostProbe(tmp_path, root=limited(tmp_path / "root", 2 * total, 1)).read().memory
    assert memory.total_bytes == total
    assert memory.used_bytes > 1


def test_container_over_its_limit_has_nothing_available(tmp_path: Path) -> None:
    memory = HostProbe(tmp_path, root=limited(tmp_path / "root", 10 << 20, 12 << 20)).read().memory
    assert memory.available_bytes == 0


def test_data_directory_yet_to_be_made_is_measured_by_its_parent(tmp_path: Path) -> None:
    probe = HostProbe(tmp_path / "not" / "yet", root=NO_CGROUPS)
    assert probe.read().disk.total_bytes == HostProbe(tmp_path, root=NO_CGROUPS).read().disk.total_bytes


def test_directory_that_cannot_be_asked_is_unknown_not_an_error(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    assert HostProbe(file / "below", root=NO_CGROUPS).read().disk.total_bytes == 0


def test_reading_starts_no_thread(tmp_path: Path) -> None:
    before = threading.active_count()
    HostProbe(tmp_path, root=NO_CGROUPS).read()
    assert threading.active_count() == before


def test_a_sandbox_that_forbids_proc_does_not_stop_the_service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on Termux, where reading /proc/stat is denied; psutil passes the error on."""

    def denied() -> None:
        raise PermissionError(13, "Permission denied: '/proc/stat'")

    for name in ("cpu_times", "virtual_memory", "swap_memory"):
        monkeypatch.setattr(psutil, name, denied)
    reading = HostProbe(tmp_path).read()
    assert (reading.cpu_percent, reading.memory.total_bytes) == (0.0, 0)
