"""The parts of the benchmarks that must not be slower than what they measure, in C, compiled on first use."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

_HERE = Path(__file__).parent
_BUILT = _HERE.parents[2] / ".cache/bench"
LOAD_CORE = 0
"""Load generator and mock engine run here, what is measured on the other cores."""


def program(name: str) -> Path:
    """The compiled `name`.c of this directory."""
    source, built = _HERE / f"{name}.c", _BUILT / name
    newest = max(source.stat().st_mtime, (_HERE / "http.h").stat().st_mtime)
    if not built.exists() or built.stat().st_mtime < newest:
        compiler = shutil.which("cc") or sys.exit("The benchmarks need a C compiler (package gcc or clang).")
        _BUILT.mkdir(parents=True, exist_ok=True)
        subprocess.run([compiler, "-O2", "-Wall", "-Wextra", "-Werror", "-o", built, source], check=True)
    return built


def pin(pid: int, *, to_load_core: bool) -> None:
    """Keep a process, all its threads, on the load's core or off it, where the machine has more than one."""
    cores = os.sched_getaffinity(0)
    others = cores - {LOAD_CORE}
    if LOAD_CORE not in cores or not others:
        return
    for task in Path(f"/proc/{pid}/task").iterdir():
        os.sched_setaffinity(int(task.name), {LOAD_CORE} if to_load_core else others)


class LoadRun:
    """A load generator at work; its arguments are told in load.c."""

    def __init__(self, port: int, **arguments: float | str) -> None:
        words = [f"{name}={value}" for name, value in arguments.items()]
        self._process = subprocess.Popen([program("load"), f"port={port}", *words], stdout=subprocess.PIPE)
        pin(self._process.pid, to_load_core=True)

    def ended_within(self, limit_s: float) -> bool:
        try:
            self._process.wait(limit_s)
        except subprocess.TimeoutExpired:
            return False
        return True

    def result(self) -> dict[str, float]:
        """What it saw; waits for its end. `failed` counts what was refused, broken off or did not end."""
        out, _ = self._process.communicate()
        seen: dict[str, float] = json.loads(out)
        return {**seen, "failed": seen["errors"] + seen["unfinished"]}


def load(port: int, **arguments: float | str) -> dict[str, float]:
    return LoadRun(port, **arguments).result()
