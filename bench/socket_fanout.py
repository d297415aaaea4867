"""What does an event to every socket client cost, what does a client cost that only listens, how do 2,000 come at once?

Every client is a websocket that gets `models_update` once a second, 1.4 KB with the models there are. CPU is all that
the service uses meanwhile, divided by the events that arrived. Memory is what the service grows by once some clients
were there and have left.
"""

from __future__ import annotations

import argparse
import asyncio
import http.client
import json
import multiprocessing
import os
import platform
import resource
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from threading import Event

import psutil

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from support.models import write_chat
from support.service import RunningService

CROWDS = (500, 2000)
MEASURED_S = 10.0
SETTLE_S = 2.0
_MODELS = 2
_EVERY_S = 0.75
"""Between two updates; the service lets changes settle for another 0.25 s."""
_WARMING = 50
"""Clients that come first."""
_AT_ONCE = 200
"""Connections a single client machine opens at a time; the listen queue holds 2048."""
_MASK = b"\0\0\0\0"
"""A mask of zeros leaves the payload as it is."""


class Listener(asyncio.Protocol):
    """A Socket.IO client on a raw websocket: connects, subscribes, answers pings, counts what it hears."""

    def __init__(self, host: str) -> None:
        self.connected = asyncio.get_running_loop().create_future()
        self.events = 0
        self.bytes = 0
        self._host = host
        self._unread = b""
        self._upgraded = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        head = (
            f"GET /llamaproxws/?EIO=4&transport=websocket HTTP/1.1\r\nHost: {self._host}\r\nUpgrade: websocket\r\n"
            "Connection: Upgrade\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        )
        transport.write(head.encode())

    def data_received(self, data: bytes) -> None:
        self._unread += data
        if not self._upgraded:
            head, separator, rest = self._unread.partition(b"\r\n\r\n")
            if not separator:
                return
            assert head.startswith(b"HTTP/1.1 101"), head
            self._upgraded, self._unread = True, rest
        while (frame := self._next_frame()) is not None:
            self._heard(frame)

    def _next_frame(self) -> bytes | None:
        data = self._unread
        if len(data) < 2:
            return None
        length, start = data[1], 2
        if length == 126:
            length, start = int.from_bytes(data[2:4], "big"), 4
        elif length == 127:
            length, start = int.from_bytes(data[2:10], "big"), 10
        if len(data) < start + length:
            return None
        self._unread = data[start + length :]
        return data[start : start + length]

    def _heard(self, message: bytes) -> None:
        if message.startswith(b"42"):
            self.events += 1
            self.bytes += len(message)
        elif message.startswith(b"0{"):
            self._send(b"40")
        elif message.startswith(b"40{"):
            self.connected.set_result(None)
            self._send(b'42["subscribe",{"type":"models"}]')
        elif message == b"2":
            self._send(b"3")

    def _send(self, text: bytes) -> None:
        self._transport.write(b"\x81" + bytes([0x80 | len(text)]) + _MASK + text)

    def close(self) -> None:
        self._transport.abort()


async def connect_all(service: RunningService, clients: int) -> list[Listener]:
    loop = asyncio.get_running_loop()
    host = f"127.0.0.1:{service.port}"
    gate = asyncio.Semaphore(_AT_ONCE)

    async def connect() -> Listener:
        async with gate:
            _, listener = await loop.create_connection(lambda: Listener(host), "127.0.0.1", service.port)
            await listener.connected
            return listener

    return list(await asyncio.gather(*(connect() for _ in range(clients))))


def slowest_request_ms(port: int, until: Event) -> float:
    """Of requests asked one after the other while something else happens; in a process of its own, or it would wait for
    the clients' event loop.
    """
    slowest = 0.0
    while not until.is_set():
        asked = time.perf_counter()
        connection = http.client.HTTPConnection("127.0.0.1", port)
        connection.request("GET", "/api/models")
        connection.getresponse().read()
        connection.close()
        slowest = max(slowest, 1000 * (time.perf_counter() - asked))
        time.sleep(0.02)
    return slowest


async def measure(service: RunningService, clients: int) -> dict[str, float]:
    process = psutil.Process(service.process.pid)
    for listener in await connect_all(service, _WARMING):
        listener.close()
    await asyncio.sleep(SETTLE_S)
    rss_before = process.memory_info().rss
    with multiprocessing.get_context("spawn").Manager() as manager, ProcessPoolExecutor(1) as bystander:
        done = manager.Event()
        asking = bystander.submit(slowest_request_ms, service.port, done)
        await asyncio.sleep(1)  # it has begun
        began = time.perf_counter()
        listeners = await connect_all(service, clients)
        storm_s = time.perf_counter() - began
        done.set()
        slowest_ms: float = await asyncio.wrap_future(asking)
    await asyncio.sleep(SETTLE_S)
    rss = process.memory_info().rss
    cpu_before, heard_before, began = _cpu_s(process), sum(c.events for c in listeners), time.perf_counter()
    await asyncio.sleep(MEASURED_S)
    cpu_s, heard = _cpu_s(process) - cpu_before, sum(c.events for c in listeners) - heard_before
    size = sum(listener.bytes for listener in listeners) / sum(listener.events for listener in listeners)
    for listener in listeners:
        listener.close()
    await asyncio.sleep(SETTLE_S)
    return {
        "clients": clients,
        "event, bytes": size,
        "events heard per client": heard / clients,
        "CPU per client-event, us": 1e6 * cpu_s / heard,
        "storm, s": storm_s,
        "slowest request in the storm, ms": slowest_ms,
        "RSS per client, KB": (rss - rss_before) / clients / 1024,
    }


def _cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    cpu_s: float = times.user + times.system
    return cpu_s


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clients", type=int, nargs="*", default=CROWDS)
    arguments = parser.parse_args()
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    rows = []
    for clients in arguments.clients:
        with tempfile.TemporaryDirectory() as directory:
            config = {"monitor": {"modelsFeedInterval": _EVERY_S}}
            service = RunningService(Path(directory))
            for i in range(_MODELS):
                write_chat(service.models_dir / f"model-{i}.gguf")
            service.data_dir.mkdir(parents=True)
            (service.data_dir / "llama-server-config.json").write_text(json.dumps(config))
            with service:
                rows.append(asyncio.run(measure(service, clients)))
    print(f"{os.cpu_count()} cores, Python {platform.python_version()}, load {os.getloadavg()[0]:.1f} at the end\n")
    print(f"| {' | '.join(rows[0])} |\n|{'---|' * len(rows[0])}")
    for row in rows:
        print(f"| {' | '.join(f'{value:.4g}' for value in row.values())} |")


if __name__ == "__main__":
    main()
