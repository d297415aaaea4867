"""How soon is a slot free when its client has left?

A real llama-server (`make test` builds it) with a slow model. While another stream runs and somebody polls /slots, as
dashboards do, a client asks for a long answer and closes its connection after half a second. Measured is the time from
its close until the engine works on the other stream only: through this service, and straight at llama-server, which
looks for clients of answers that are not streamed only when nothing else has had a result for a second.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import NamedTuple

import httpx

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from support.models import write_slow_chat
from support.service import LLAMA_SERVER, RunningService
from support.tables import conditions, table

PATIENCE_S = 5.0
POLL_S = 0.02
TOKENS = 2000


def body(*, stream: bool) -> bytes:
    asked = {"model": "slow", "messages": [{"role": "user", "content": "?"}], "prompt": "?", "stream": stream}
    return json.dumps({**asked, "max_tokens": TOKENS, "n_predict": TOKENS, "ignore_eos": True}).encode()


class Server(NamedTuple):
    port: int
    key: str = ""

    @property
    def headers(self) -> dict[str, str]:
        return {"authorization": f"Bearer {self.key}"}


async def asked(server: Server, path: str, *, stream: bool) -> asyncio.StreamWriter:
    """A connection whose request has been sent."""
    _, writer = await asyncio.open_connection("127.0.0.1", server.port)
    data = body(stream=stream)
    fields = {"host": "localhost", "content-type": "application/json", "content-length": len(data), **server.headers}
    lines = [f"POST {path} HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items())]
    writer.write("\r\n".join(lines).encode() + b"\r\n\r\n" + data)
    await writer.drain()
    return writer


@contextlib.asynccontextmanager
async def other_stream(server: Server) -> AsyncIterator[None]:
    writer = await asked(server, "/v1/chat/completions", stream=True)
    try:
        yield
    finally:
        writer.transport.abort()


class Slots:
    def __init__(self, http: httpx.AsyncClient, engine: Server) -> None:
        self._http = http
        self._engine = engine

    async def until(self, busy: int, limit_s: float) -> float:
        """Seconds until so many slots are at work; `limit_s` when it takes longer."""
        started = time.perf_counter()
        while (elapsed := time.perf_counter() - started) < limit_s:
            url = f"http://127.0.0.1:{self._engine.port}/slots"
            slots = (await self._http.get(url, headers=self._engine.headers)).json()
            if sum(slot["is_processing"] for slot in slots) == busy:
                return elapsed
            await asyncio.sleep(POLL_S)
        return limit_s


async def freed_s(server: Server, slots: Slots, path: str, *, stream: bool) -> float:
    """From the client's close until the slot is free."""
    await slots.until(0, PATIENCE_S * 10)
    async with other_stream(server):
        await slots.until(1, PATIENCE_S)
        writer = await asked(server, path, stream=stream)
        await slots.until(2, PATIENCE_S)
        await asyncio.sleep(0.5)
        writer.transport.abort()
        return await slots.until(1, PATIENCE_S)


async def measure(service: RunningService, rounds: int) -> dict[str, dict[str, float]]:
    rows: dict[str, dict[str, float]] = {}
    service.call("POST", "/api/models/slow/load")
    [(child, port)] = [
        (p, c.laddr.port) for p in service.children() for c in p.net_connections() if c.status == "LISTEN"
    ]
    engine = Server(port, child.environ()["LLAMA_API_KEY"])
    async with httpx.AsyncClient(timeout=60) as http:
        slots = Slots(http, engine)
        for path in ("/v1/chat/completions", "/completion", "/v1/messages"):
            for stream in (True, False):
                times = [await freed_s(Server(service.port), slots, path, stream=stream) for _ in range(rounds)]
                straight = await freed_s(engine, slots, path, stream=stream)
                name = f"{path}, {'streamed' if stream else 'in one piece'}"
                rows[name] = {
                    "through the service, median s": sorted(times)[len(times) // 2],
                    "worst s": max(times),
                    f"llama-server itself, s (at most {PATIENCE_S:g} waited)": straight,
                }
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        (directory / "models").mkdir()
        write_slow_chat(directory / "models/slow.gguf")
        with RunningService(directory, "--llama-server", str(LLAMA_SERVER)) as service:
            service.wait_for_models(1)
            rows = asyncio.run(measure(service, rounds))
    print(conditions(rounds), "\n")
    print(table(rows, first="request"))


if __name__ == "__main__":
    main()
