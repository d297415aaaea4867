"""How long does a model wait while others keep its place busy?

Room for one model. Three clients send requests of about a second for model A without a pause, overlapping; then one
request for model B arrives. The same against our service, llama-server's own router and, where LLAMA_SWAP names its
binary, llama-swap. A's clients stop when B has its answer, at the latest PATIENCE_S after it arrived: whoever starves B
shows that limit, not a wait of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path

import httpx

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from support.models import write_slow_chat
from support.service import LLAMA_SERVER, RunningService, clean_environment, free_port

FAIRNESS_S = 4.0
LEAD_S = 1.0
"""How long A is in full swing before B arrives."""
PATIENCE_S = 10.0
CLIENTS = 3
REQUEST_S = 1.0
START_LIMIT_S = 20.0


@dataclass
class Outcome:
    wait_s: float = 0.0
    """From B's arrival to its answer."""
    overtaking: int = 0
    """Requests for A that came later than B and were answered before it."""
    served: int = 0
    """All answers for A."""
    starved: bool = False
    """B had no answer when A's clients stopped."""
    failures: list[str] = field(default_factory=list)


class Scene:
    """The clients of one server."""

    def __init__(self, url: str, http: httpx.AsyncClient) -> None:
        self._url = url
        self._http = http
        self._tokens = 8
        self._over = asyncio.Event()
        self._b_arrived_s: float | None = None
        self._outcome = Outcome()

    async def play(self) -> Outcome:
        await self._until_it_answers()
        began_s = time.monotonic()
        await self._ask("a", 32)
        self._tokens = max(8, round(32 * REQUEST_S / (time.monotonic() - began_s) / CLIENTS))
        async with asyncio.TaskGroup() as tasks:
            for number in range(CLIENTS):
                tasks.create_task(self._keep_busy(number * REQUEST_S / CLIENTS))
            await asyncio.sleep(LEAD_S)
            await self._wait_for_b(tasks)
        return self._outcome

    async def _until_it_answers(self) -> None:
        """Loads A, too."""
        deadline_s = time.monotonic() + START_LIMIT_S
        while time.monotonic() < deadline_s:
            with contextlib.suppress(httpx.TransportError):
                if await self._ask("a", 1):
                    return
            await asyncio.sleep(0.1)
        raise TimeoutError(f"{self._url} gave no answer within {START_LIMIT_S:g} s")

    async def _ask(self, model: str, tokens: int) -> bool:
        body = {"model": model, "max_tokens": tokens, "messages": [{"role": "user", "content": "Tell me a story."}]}
        response = await self._http.post(f"{self._url}/v1/chat/completions", json=body)
        return response.status_code == 200

    async def _keep_busy(self, delay_s: float) -> None:
        await asyncio.sleep(delay_s)
        while not self._over.is_set():
            began_s = time.monotonic()
            if not await self._ask("a", self._tokens):
                self._outcome.failures.append("a request for A failed")
                return
            self._outcome.served += 1
            waits = self._b_arrived_s is not None and not self._over.is_set()
            if waits and self._b_arrived_s is not None and began_s > self._b_arrived_s:
                self._outcome.overtaking += 1

    async def _wait_for_b(self, tasks: asyncio.TaskGroup) -> None:
        self._b_arrived_s = time.monotonic()
        answer = tasks.create_task(self._ask("b", 1))
        done, _ = await asyncio.wait([answer], timeout=PATIENCE_S)
        self._outcome.starved = not done
        self._over.set()
        if not await answer:
            self._outcome.failures.append("the request for B failed")
        self._outcome.wait_s = time.monotonic() - self._b_arrived_s


@contextlib.contextmanager
def our_service(models: Path) -> Iterator[str]:
    with tempfile.TemporaryDirectory() as name:
        arguments = ("--llama-server", str(LLAMA_SERVER), "--max-models", "1", "--fairness", str(FAIRNESS_S))
        with RunningService(Path(name), *arguments, models_dir=models) as service:
            yield service.url


@contextlib.contextmanager
def llama_router(models: Path) -> Iterator[str]:
    port = free_port()
    command = [str(LLAMA_SERVER), "--models-dir", str(models), "--models-max", "1", "--threads", "1"]
    with process([*command, "--host", "127.0.0.1", "--port", str(port)]):
        yield f"http://127.0.0.1:{port}"


@contextlib.contextmanager
def llama_swap(models: Path) -> Iterator[str]:
    port = free_port()
    server = shlex.join([str(LLAMA_SERVER), "--threads", "1", "--host", "127.0.0.1", "--port"])
    cmds = {name: {"cmd": f"{server} ${{PORT}} -m {shlex.quote(str(models / name))}.gguf"} for name in ("a", "b")}
    with tempfile.TemporaryDirectory() as name:
        config = Path(name) / "config.yaml"
        config.write_text(json.dumps({"models": cmds}))  # which is YAML, too
        with process([os.environ["LLAMA_SWAP"], "--config", str(config), "--listen", f"127.0.0.1:{port}"]):
            yield f"http://127.0.0.1:{port}"


@contextlib.contextmanager
def process(command: list[str]) -> Iterator[None]:
    child = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=clean_environment(), start_new_session=True
    )
    try:
        yield
    finally:
        child.terminate()
        try:
            child.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(child.pid, 9)
            child.wait()


Server = Callable[[Path], AbstractContextManager[str]]


async def played(url: str) -> Outcome:
    # llama-server closes kept connections when it likes: that is not what is measured here.
    async with httpx.AsyncClient(timeout=60, limits=httpx.Limits(max_keepalive_connections=0)) as http:
        return await Scene(url, http).play()


def main() -> int:
    servers: dict[str, Server] = {f"this service, fairness {FAIRNESS_S:g} s": our_service, "llama-server": llama_router}
    if "LLAMA_SWAP" in os.environ:
        servers["llama-swap"] = llama_swap
    print("| server | B waited, s | requests that overtook it | answers for A |")
    print("|---|---|---|---|")
    outcomes = []
    with tempfile.TemporaryDirectory() as name:
        models = Path(name)
        for model in ("a", "b"):
            write_slow_chat(models / f"{model}.gguf", name=model)
        for server, start in servers.items():
            with start(models) as url:
                outcome = asyncio.run(played(url))
            until = " (until A's clients stopped)" if outcome.starved else ""
            print(f"| {server} | {outcome.wait_s:.1f}{until} | {outcome.overtaking} | {outcome.served} |", flush=True)
            outcomes.append(outcome)
            for failure in outcome.failures:
                print(f"{server}: {failure}", file=sys.stderr)
    ours = outcomes[0]
    return 0 if not (ours.starved or ours.failures) else 1


if __name__ == "__main__":
    sys.exit(main())
