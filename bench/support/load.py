"""A load generator of raw connections: what a client sees of single answers and of streams."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field

FILLER = "The quick brown fox jumps over the lazy dog. " * 15


def request(path: str, body: bytes) -> bytes:
    return b"POST %b HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (
        path.encode(),
        len(body),
        body,
    )


@dataclass
class Latencies:
    """Seconds."""

    answers: list[float] = field(default_factory=list)
    """Request sent to answer complete."""
    first: list[float] = field(default_factory=list)
    """Request sent to first event received."""
    events: list[float] = field(default_factory=list)
    """Event written by the engine to event received."""


class _Client(asyncio.Protocol):
    """Sends one request at a time; `done` is set when its answer is complete."""

    def __init__(self, latencies: Latencies) -> None:
        self._latencies = latencies
        self._received = bytearray()
        self._sent_at = 0.0
        self._is_first = True
        self._is_stream = False
        self.done: asyncio.Future[None]

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: asyncio.Transport = transport  # type: ignore[assignment]

    def send(self, data: bytes, *, stream: bool) -> asyncio.Future[None]:
        self._received.clear()
        self._is_first, self._is_stream = True, stream
        self.done = asyncio.get_running_loop().create_future()
        self._sent_at = time.perf_counter()
        self.transport.write(data)
        return self.done

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.done.done():
            self.done.set_exception(exc or ConnectionResetError("the server closed before the end"))

    def data_received(self, data: bytes) -> None:
        if self._is_stream:
            self._stream_data(data)
            return
        self._received += data
        head_end = self._received.find(b"\r\n\r\n")
        if head_end < 0:
            return
        head = bytes(self._received[:head_end]).lower()
        length = int(head.split(b"content-length:", 1)[1].split(b"\r\n", 1)[0])
        if len(self._received) >= head_end + 4 + length:
            self._latencies.answers.append(time.perf_counter() - self._sent_at)
            self.done.set_result(None)

    def _stream_data(self, data: bytes) -> None:
        now = time.monotonic_ns()
        at = data.find(b'"t":')
        if at >= 0 and self._is_first:
            self._is_first = False
            self._latencies.first.append(time.perf_counter() - self._sent_at)
        while at >= 0:
            end = data.find(b"}", at)
            self._latencies.events.append((now - int(data[at + 4 : end])) / 1e9)
            at = data.find(b'"t":', end)
        if b"data: [DONE]" in data and not self.done.done():
            self.done.set_result(None)


async def answers(port: int, model: str, *, clients: int, each: int) -> Latencies:
    """`clients` connections, each sending `each` requests one after the other."""
    latencies = Latencies()
    data = request("/v1/chat/completions", b'{"model":"%b","messages":"%b"}' % (model.encode(), FILLER.encode()))

    async def one() -> None:
        sent, client = 0, None
        while sent < each:
            if client is None or client.transport.is_closing():
                client = await _connected(port, latencies)
            await client.send(data, stream=False)
            sent += 1
        if client is not None:
            client.transport.close()

    await asyncio.gather(*(one() for _ in range(clients)))
    return latencies


async def streams(port: int, model: str, *, clients: int, each: int, events: int, interval_ms: float) -> Latencies:
    """`clients` at once, each reading `each` streams one after the other on new connections, as the engine has it.

    They start evenly over one interval, so that their events do not coincide.
    """
    latencies = Latencies()
    body = b'{"model":"%b","stream":true,"events":%d,"interval_ms":%f,"messages":"%b"}'
    data = request("/v1/chat/completions", body % (model.encode(), events, interval_ms, FILLER.encode()))

    async def one(number: int) -> None:
        await asyncio.sleep(interval_ms / 1000 * number / clients)
        for _ in range(each):
            client = await _connected(port, latencies)
            await client.send(data, stream=True)
            client.transport.close()

    await asyncio.gather(*(one(number) for number in range(clients)))
    return latencies


async def _connected(port: int, latencies: Latencies) -> _Client:
    _, client = await asyncio.get_running_loop().create_connection(lambda: _Client(latencies), "127.0.0.1", port)
    return client
