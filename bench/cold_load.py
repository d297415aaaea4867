"""How long does a request for a model that is not loaded take to its first token?

The demo model, from a warm file cache: llama-server started by hand and asked as soon as it is healthy, its own router,
and this service. Needs the real llama-server (`make test` builds it).
"""

from __future__ import annotations

import argparse
import contextlib
import json
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from support.service import LLAMA_SERVER, RunningService, clean_environment, free_port
from support.tables import conditions, medians, table

BODY = {"model": "demo", "messages": [{"role": "user", "content": "?"}], "max_tokens": 4, "stream": True}


def first_token_s(port: int, since: float) -> float:
    """From `since` until an answer's first token is here; a server that is not there yet is asked again."""
    request = urllib.request.Request(f"http://127.0.0.1:{port}/v1/chat/completions", json.dumps(BODY).encode())
    request.add_header("content-type", "application/json")
    while True:
        with contextlib.suppress(urllib.error.URLError, ConnectionError), urllib.request.urlopen(request) as answer:
            for line in answer:
                if b'"content":"' in line:
                    return time.perf_counter() - since
        time.sleep(0.002)


@contextlib.contextmanager
def running(*arguments: str) -> Iterator[None]:
    child = subprocess.Popen(
        [LLAMA_SERVER, "--host", "127.0.0.1", "--threads", "1", *arguments],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=clean_environment(),
    )
    try:
        yield
    finally:
        child.kill()
        child.wait()


def by_hand(models: Path) -> float:
    started, port = time.perf_counter(), free_port()
    with running("--port", str(port), "--model", str(models / "demo.gguf"), "--alias", "demo"):
        return first_token_s(port, started)


def by_router(models: Path) -> float:
    port = free_port()
    with running("--port", str(port), "--models-dir", str(models)):
        _answers(port)
        return first_token_s(port, time.perf_counter())


def _answers(port: int) -> None:
    while True:
        with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/health"):
            return
        time.sleep(0.01)


def by_us(service: RunningService) -> float:
    seconds = first_token_s(service.port, time.perf_counter())
    service.call("POST", "/api/models/demo/unload")
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory() as directory:
        models = Path(directory, "models")
        demo = [sys.executable, "-m", "llama_async_proxy", "demo", "--models-dir", str(models)]
        subprocess.run(demo, check=True, stdout=subprocess.DEVNULL)
        with _service(Path(directory), models) as service:
            ways: dict[str, Callable[[], float]] = {
                "llama-server, started by hand": lambda: by_hand(models),
                "llama-server's router": lambda: by_router(models),
                "service": lambda: by_us(service),
            }
            rows = medians(rounds, lambda name: {"request to first token, s": ways[name]()}, ways)
    print(conditions(rounds), "\n")
    print(table(rows, first="way"))


def _service(directory: Path, models: Path) -> AbstractContextManager[RunningService]:
    service = RunningService(directory / "run", "--llama-server", str(LLAMA_SERVER), models_dir=models)
    service.output_path.parent.mkdir(parents=True, exist_ok=True)
    return service


if __name__ == "__main__":
    main()
