from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from llama_async_proxy.errors import StoreUnavailable
from llama_async_proxy.store.service_lock import service_lock
from store.faults import fill, tiny_disk

HOLD = """
import sys
from pathlib import Path
from llama_async_proxy.store.service_lock import service_lock
with service_lock(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_second_service_gets_the_process_that_holds_the_directory(tmp_path: Path) -> None:
    with (
        service_lock(tmp_path),
        pytest.raises(StoreUnavailable, match=rf"pid {os.getpid()} since \d{{4}}-") as raised,
        service_lock(tmp_path),
    ):
        pass
    assert str(tmp_path) in raised.value.message
    assert "--data-dir" in raised.value.message


def test_the_lock_ends_with_its_block_and_with_its_process(tmp_path: Path) -> None:
    with service_lock(tmp_path):
        pass
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(StoreUnavailable, match=f"pid {holder.pid} "), service_lock(tmp_path):
            pass
        holder.kill()
        holder.wait()
        with service_lock(tmp_path):
            assert f"pid {os.getpid()} " in (tmp_path / "service.lock").read_text()


def test_a_directory_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with (
        pytest.raises(StoreUnavailable, match=r"Cannot write to the data directory.*--data-dir"),
        service_lock(tmp_path / "missing"),
    ):
        pass


def test_a_full_disk_is_named(tmp_path: Path) -> None:
    with tiny_disk(tmp_path / "disk") as disk:
        fill(disk)
        with pytest.raises(StoreUnavailable, match=r"No space left on device\. Free some space"), service_lock(disk):
            pass
