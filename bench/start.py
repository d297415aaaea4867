"""How long until the service answers, how much memory does it take idle, how fast does the demo model load?

Prints medians of five starts with a warm file cache, beside a probe: a process that only imports the third-party
packages that the service uses. Run it where only the runtime dependencies are installed; python-engineio imports
aiohttp where that is installed.

REST is built when its first request comes. The first answer is therefore one of the inference API, and what REST adds
has rows of its own.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import psutil

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from support.service import RunningService

ROUNDS = 5
SETTLE_S = 3.0
"""Seconds between the first answer and the reading of the idle memory: time for the first scan and a sample."""
PACKAGES = (
    "alembic, fastapi, httptools, msgspec, platformdirs, psutil, pynvml, socketio, sqlalchemy, uvicorn, uvloop, "
    "websockets, yaml"
)
"""The runtime dependencies; xllamacpp is left out, because only models' processes import it."""
PROBE, START, IDLE, FIRST_REST, IDLE_REST, LOAD = (
    "probe: third-party packages imported",
    "process start to first answer",
    "idle memory without a model",
    "first answer of REST",
    "idle memory with REST",
    "demo model load",
)
UNITS: Mapping[str, str] = {IDLE: "MiB", IDLE_REST: "MiB"}


def probe_s() -> float:
    started = time.perf_counter()
    subprocess.run([sys.executable, "-c", f"import {PACKAGES}"], check=True)
    return time.perf_counter() - started


def answer_s(service: RunningService, method: str, path: str) -> float:
    started = time.perf_counter()
    status, answer = service.call(method, path)
    assert status == 200, answer
    return time.perf_counter() - started


def start_s(service: RunningService) -> float:
    """Process start to the first answered request."""
    started = time.perf_counter()
    service.start()
    answer_s(service, "GET", "/v1/models")
    return time.perf_counter() - started


def memory_mib(service: RunningService) -> float:
    time.sleep(SETTLE_S)
    return float(psutil.Process(service.process.pid).memory_info().rss / 2**20)


def one_round(directory: Path, models: Path) -> Mapping[str, float]:
    service = RunningService(directory / "run", models_dir=models)
    service.output_path.parent.mkdir(parents=True, exist_ok=True)
    measured = {PROBE: probe_s(), START: start_s(service), IDLE: memory_mib(service)}
    measured[FIRST_REST] = answer_s(service, "GET", "/api/models")
    measured[IDLE_REST] = memory_mib(service)
    measured[LOAD] = answer_s(service, "POST", "/api/models/demo/load")
    service.stop()
    return measured


def report(measured: Mapping[str, Sequence[float]]) -> str:
    lines = [f"| measure ({psutil.cpu_count()} cores, Python {sys.version.split()[0]}) | median | worst of {ROUNDS} |"]
    lines += ["|---|---|---|"]
    for name, values in measured.items():
        unit = UNITS.get(name, "s")
        lines += [f"| {name} | {statistics.median(values):.3g} {unit} | {max(values):.3g} {unit} |"]
    ratio = statistics.median(measured[START]) / statistics.median(measured[PROBE])
    return "\n".join([*lines, f"| first answer / probe | {ratio:.2f} | |"])


def main() -> None:
    measured: dict[str, list[float]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as directory:
        models = Path(directory, "models")
        demo = [sys.executable, "-m", "llama_async_proxy", "demo", "--models-dir", str(models)]
        subprocess.run(demo, check=True, stdout=subprocess.DEVNULL)
        for number in range(ROUNDS):
            for name, value in one_round(Path(directory, str(number)), models).items():
                measured[name].append(value)
    print(report(measured))


if __name__ == "__main__":
    main()
