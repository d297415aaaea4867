"""How long until the service answers, how much memory does it take idle, how fast does the demo model load?

Medians of five starts with a warm file cache. Conditions are printed; the numbers mean little on a busy machine.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from support.service import RunningService

ROUNDS = 5
SETTLE_S = 3.0
"""Seconds between the first answer and the reading of the idle memory."""


def first_answer_s(service: RunningService) -> float:
    """Process start to the first answered request."""
    started = time.perf_counter()
    service.start()
    service.call("GET", "/api/models")
    return time.perf_counter() - started


def load_s(service: RunningService) -> float:
    started = time.perf_counter()
    status, answer = service.call("POST", "/api/models/demo/load")
    assert status == 200, answer
    return time.perf_counter() - started


def main() -> None:
    starts, memory, loads = [], [], []
    with tempfile.TemporaryDirectory() as directory:
        models = Path(directory, "models")
        demo = [sys.executable, "-m", "llama_async_proxy", "demo", "--models-dir", str(models)]
        subprocess.run(demo, check=True, stdout=subprocess.DEVNULL)
        for round_number in range(ROUNDS):
            service = RunningService(Path(directory, str(round_number)) / "run", models_dir=models)
            service.output_path.parent.mkdir(parents=True, exist_ok=True)
            starts.append(first_answer_s(service))
            service.wait_for_models(1)
            time.sleep(SETTLE_S)
            memory.append(psutil.Process(service.process.pid).memory_info().rss / 2**20)
            loads.append(load_s(service))
            service.stop()
    print(f"| measure ({psutil.cpu_count()} cores, Python {sys.version.split()[0]}) | median | worst of {ROUNDS} |")
    print("|---|---|---|")
    for name, values, unit in (
        ("process start to first answer", starts, "s"),
        ("idle memory without a model", memory, "MiB"),
        ("demo model load", loads, "s"),
    ):
        print(f"| {name} | {statistics.median(values):.3g} {unit} | {max(values):.3g} {unit} |")


if __name__ == "__main__":
    main()
