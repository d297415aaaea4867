from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from llama_async_proxy.engines import parent_guard
from llama_async_proxy.engines.parent_guard import PARENT_VARIABLE

LEASH = (sys.executable, "-I", "-S", parent_guard.__file__)
linux_only = pytest.mark.skipif(sys.platform != "linux", reason="only Linux can tie a process to another")


def run(*argv: str, owner: int | None = None) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if k != PARENT_VARIABLE}
    if owner is not None:
        environment[PARENT_VARIABLE] = str(owner)
    return subprocess.run([*LEASH, *argv], capture_output=True, text=True, timeout=30, env=environment, check=False)


@pytest.mark.parametrize("owned", [False, True])
def test_the_guard_becomes_the_program(owned: bool) -> None:
    owner = os.getpid() if owned else None
    result = run("/bin/sh", "-c", 'echo "$0 $1"; exit 3', "a b", "*", owner=owner)
    assert (result.returncode, result.stdout) == (3, "a b *\n")


@linux_only
def test_the_program_gets_the_parent_death_signal() -> None:
    read = "import ctypes; n = ctypes.c_int(); ctypes.CDLL(None).prctl(2, ctypes.byref(n)); print(n.value)"
    assert run(sys.executable, "-c", read, owner=os.getpid()).stdout == "9\n"
    assert run(sys.executable, "-c", read).stdout == "0\n"


@linux_only
def test_no_program_starts_when_the_parent_has_died(tmp_path: Path) -> None:
    result = run("/bin/sh", "-c", f"touch {tmp_path / 'started'}", owner=os.getppid())
    assert result.returncode == 1
    assert not (tmp_path / "started").exists()


def test_a_program_that_cannot_run_is_named() -> None:
    result = run("/nonexistent/llama-server")
    assert result.returncode == 127
    assert result.stderr == "error: cannot run /nonexistent/llama-server: No such file or directory\n"
