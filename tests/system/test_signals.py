"""Signals to the running service."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from llama_async_proxy.api.http.signals import ending_signals
from support.service import RunningService

ENDING = ("INT", "TERM", "QUIT", "USR1", "USR2", "ALRM", "XCPU")


def wait_for(service: RunningService, text: str) -> None:
    deadline = time.monotonic() + 30
    while text not in service.output:
        assert time.monotonic() < deadline, service.output
        assert service.process.poll() is None, service.output
        time.sleep(0.05)


@pytest.mark.parametrize("name", ENDING)
def test_signals_that_would_end_the_service_stop_it_in_order(tmp_path: Path, name: str) -> None:
    with RunningService(tmp_path, "--engine", "embedded") as service:
        wait_for(service, "Serving on")
        service.process.send_signal(getattr(signal, f"SIG{name}"))
        assert service.process.wait(30) == 0
        assert "Stopping" in service.output


def test_no_ending_signal_is_left_out() -> None:
    faults = {"KILL", "STOP", "ABRT", "SEGV", "BUS", "FPE", "ILL", "TRAP", "SYS", "IOT"}
    harmless = {"CHLD", "CONT", "TSTP", "TTIN", "TTOU", "URG", "WINCH", "PIPE", "XFSZ", "HUP"}
    named = {int(number) for number in signal.Signals}
    left = {signal.Signals(number).name.removeprefix("SIG") for number in named - set(ending_signals())}
    assert left <= faults | harmless


def test_hup_reads_the_configuration_file_again(tmp_path: Path) -> None:
    with RunningService(tmp_path, "--engine", "embedded", "--max-models", "3") as service:
        wait_for(service, "Serving on")
        path = service.data_dir / "llama-server-config.json"
        for _ in range(2):  # a file at fault changes nothing
            path.write_text('{"maxModels": ')
            service.process.send_signal(signal.SIGHUP)
            wait_for(service, "the configuration stays as it was")
        path.write_text(json.dumps({"llama": {"idleTtl": 77}, "server": {"port": 1}, "maxModels": 9}))
        service.process.send_signal(signal.SIGHUP)
        wait_for(service, "changed: idle_ttl_s")
        with urllib.request.urlopen(f"{service.url}/api/config", timeout=30) as answer:
            settings = json.load(answer)["settings"]
        assert settings["llama"]["idleTtl"] == 77
        assert settings["maxModels"] == 3
        assert service.stop() == 0


def test_temporary_files_of_a_killed_service_are_gone_after_the_next_start(tmp_path: Path) -> None:
    service = RunningService(tmp_path, "--engine", "embedded")
    (service.data_dir / "presets" / ".history").mkdir(parents=True)
    left = [
        service.data_dir / ".llama-server-config.json.ab12_xyz",
        service.data_dir / ".llama-server-config.json.ab12_xyz.tmp",
        service.data_dir / "presets" / ".default.ini.ab12_xyz.tmp",
        service.data_dir / "presets" / ".history" / ".x.ini.ab12_xyz.tmp",
    ]
    kept = [service.data_dir / ".config.original", service.data_dir / "presets" / "mine.ini"]
    for path in (*left, *kept):
        path.write_text("; x")
    with service:
        wait_for(service, "Serving on")
        assert [path for path in left if path.exists()] == []
        assert [path for path in kept if not path.exists()] == []


REAPER = """
import asyncio, ctypes, os, sys, time
from llama_async_proxy.engines.process import reap_adopted
ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER: orphans come here, as to process 1
first = os.fork()
if first == 0:
    if os.fork() == 0:
        time.sleep(0.2)
    os._exit(0)
os.waitpid(first, 0)
async def main():
    reaping = asyncio.create_task(reap_adopted(0.2))
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", "raise SystemExit(7)")
    assert await process.wait() == 7
    await asyncio.sleep(1.5)
    try:
        os.waitpid(-1, os.WNOHANG)
    except ChildProcessError:
        print("no child is left")
    reaping.cancel()
asyncio.run(main())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="needs a child subreaper")
def test_orphans_are_reaped_and_children_keep_their_exit_code() -> None:
    result = subprocess.run(
        [sys.executable, "-c", REAPER], capture_output=True, text=True, timeout=60, check=False, env=dict(os.environ)
    )
    assert result.stdout == "no child is left\n", result.stderr
