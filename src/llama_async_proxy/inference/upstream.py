"""An HTTP/1.1 client for model processes: one asyncio.Protocol per connection, httptools for the framing.

Made for what llama-server does. It closes after every streamed answer although it promises keep-alive, and closes idle
connections after 5 s; so only connections of answers with a length are kept, for less than that, and a kept one that
turns out dead before the first byte is replaced once. There is no retry beyond that: a generation must not run twice.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import cast

import httptools

from llama_async_proxy.errors import DeadlineExceeded, ServiceError, UpstreamFailed
from llama_async_proxy.inference.addressing import body_for, target_for
from llama_async_proxy.records import Endpoint

KEEP_IDLE_S = 4.0
"""llama-server closes after 5.0 s; a second less, so that its close rarely meets our next request."""
MAX_IDLE = 32
"""Per model. After a burst of hundreds the rest would only be sockets to close."""
_MAX_BUFFERED = 256 * 1024
"""Bytes of an answer waiting for a slow reader; above it the socket is not read."""
MAX_HEAD = 256 * 1024
_JOIN_BELOW = 64 * 1024
"""Smaller bodies are joined to their head: one copy is cheaper than a second system call."""


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds, one limit per phase; an answer as a whole may take as long as it likes."""

    connect_s: float
    first_byte_s: float
    idle_s: float
    """Between two pieces of the answer."""


@dataclass(frozen=True, slots=True)
class UpstreamRequest:
    """`headers` without host, content-length and hop-by-hop ones; `target` as on the request line."""

    method: str
    target: bytes
    headers: Sequence[tuple[bytes, bytes]] = ()
    body: bytes = b""

    def to(self, endpoint: Endpoint) -> UpstreamRequest:
        """The same as a router there needs it; for other servers unchanged."""
        if endpoint.model is None:
            return self
        return replace(self, target=target_for(endpoint.model, self.target), body=body_for(endpoint.model, self.body))

    def head(self, endpoint: Endpoint) -> bytes:
        lines = [b"%b %b HTTP/1.1\r\nhost: %b" % (self.method.encode(), self.target, authority(endpoint))]
        lines += [b"%b: %b" % header for header in self.headers]
        if endpoint.api_key is not None:
            lines.append(b"authorization: Bearer " + endpoint.api_key.encode())
        if self.body or self.method == "POST":
            lines.append(b"content-length: %d" % len(self.body))
        return b"\r\n".join(lines) + b"\r\n\r\n"


def authority(endpoint: Endpoint) -> bytes:
    """As a Host header has it."""
    host = endpoint.host.encode()
    return b"[%b]:%d" % (host, endpoint.port) if b":" in host else b"%b:%d" % (host, endpoint.port)


class Response(asyncio.Protocol):
    """One connection, and the answer now coming in on it. Read by one task."""

    def __init__(self, endpoint: Endpoint, on_lost: Callable[[Response], None]) -> None:
        self.endpoint = endpoint
        self.status = 0
        self.headers: list[tuple[bytes, bytes]] = []
        """Names in lower case, in the order received."""
        self.reusable = False
        self.lost = False
        self._on_lost = on_lost
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport
        self._parser: httptools.HttpResponseParser
        self._is_due = False
        """An answer was asked for and has not ended."""
        self._headless = False
        self._idle_s = 0.0
        self._received = 0
        self._has_head = self._complete = self._has_length = self._is_chunked = False
        self._chunks: list[bytes] = []
        self._buffered = 0
        self._paused = False
        self._failure: ServiceError | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._deadline: float | None = None

    # --- for the reader ---------------------------------------------------------------------------

    @property
    def ended(self) -> bool:
        """Every byte of the answer has been read."""
        return self._complete and not self._chunks

    async def read(self) -> bytes:
        """What has come in since the last call, waiting for at least one byte; empty at the end.

        Raises UpstreamFailed when the answer breaks off, DeadlineExceeded when it pauses for too long.
        """
        while not self._chunks:
            if self._complete:
                return b""
            await self._wait(self._idle_s)
        data = self._chunks[0] if len(self._chunks) == 1 else b"".join(self._chunks)
        self._chunks.clear()
        self._buffered = 0
        if self._paused:
            self._paused = False
            self._transport.resume_reading()
        return data

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while chunk := await self.read():
            yield chunk

    # --- for the client ---------------------------------------------------------------------------

    async def begin(self, request: UpstreamRequest, timeouts: Timeouts) -> bool:
        """Send `request` and wait for the head of the answer. False: a kept connection had died before."""
        kept = self._received > 0
        self._reset(request, timeouts)
        head = request.head(self.endpoint)
        if len(request.body) < _JOIN_BELOW:
            self._transport.write(head + request.body)
        else:
            self._transport.write(head)
            self._transport.write(request.body)
        try:
            while not self._has_head:
                await self._wait(timeouts.first_byte_s)
        except UpstreamFailed:
            if kept and not self._received:
                return False
            raise
        return True

    def rest(self) -> None:
        """Wait, unused, for another request; closes itself after a while."""
        self._set_deadline(KEEP_IDLE_S)

    def abort(self) -> None:
        """Close at once; what is still coming is thrown away."""
        self._transport.abort()

    def _reset(self, request: UpstreamRequest, timeouts: Timeouts) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self._is_due = True
        self._headless = request.method == "HEAD"
        self._idle_s = timeouts.idle_s
        self.headers = []
        self._received = 0
        self._has_head = self._complete = self._has_length = self._is_chunked = self.reusable = False

    # --- waiting ----------------------------------------------------------------------------------

    async def _wait(self, limit_s: float) -> None:
        """Until something came in. Raises what went wrong, now or before."""
        if self._failure is None:
            self._waiter = self._loop.create_future()
            self._set_deadline(limit_s)
            try:
                await self._waiter
            finally:
                self._waiter = self._deadline = None
        if self._failure is not None and not self._chunks:
            raise self._failure

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _set_deadline(self, limit_s: float) -> None:
        """One timer per connection, moved only when it fires: a token costs no timer."""
        self._deadline = self._loop.time() + limit_s
        if self._timer is not None and self._timer.when() > self._deadline:
            self._timer.cancel()
            self._timer = None
        if self._timer is None and not self.lost:
            self._timer = self._loop.call_at(self._deadline, self._timer_fired)

    def _timer_fired(self) -> None:
        self._timer = None
        if self._deadline is None:
            return
        if self._loop.time() < self._deadline:
            self._timer = self._loop.call_at(self._deadline, self._timer_fired)
        elif self._waiter is None:
            self._transport.close()
        else:
            what = "is silent in the middle of its answer" if self._has_head else "does not begin to answer"
            self._fail(DeadlineExceeded(f"The model's process {what}; the time limit for that has passed."))

    def _fail(self, failure: ServiceError) -> None:
        self._failure = self._failure or failure
        self._transport.abort()
        self._wake()

    # --- asyncio.Protocol -------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        if not self._is_due:
            self._transport.abort()  # nobody asked for this
            return
        self._received += len(data)
        self._feed(data)
        if not self._has_head and self._received > MAX_HEAD:
            self._fail(UpstreamFailed(f"The model's process sent a head of more than {MAX_HEAD} bytes."))
        if self._buffered > _MAX_BUFFERED and not self._paused:
            self._paused = True
            self._transport.pause_reading()
        self._wake()

    def _feed(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            if self._is_due:
                self._fail(UpstreamFailed(f"The model's process sent something that is not HTTP/1.1: {error}"))
            else:
                self.reusable = False  # bytes beyond the end of the answer

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._has_head and exc is None and not (self._has_length or self._is_chunked):
            self._end()  # an answer that ends with its connection
        if not self._complete and self._failure is None:
            what = "broke off its answer" if self._has_head else "closed the connection without an answer"
            self._failure = UpstreamFailed(f"The model's process {what}.")
        self._on_lost(self)
        self._wake()

    # --- httptools --------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        if not self._is_due:
            raise ValueError("a second answer to one request")

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._has_head:
            return  # a trailer
        name = name.lower()
        if name == b"content-length":
            self._has_length = True
        elif name == b"transfer-encoding":
            self._is_chunked = True
        self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        self.status = self._parser.get_status_code()
        if self.status < 200:
            self.headers = []  # an interim answer; the real one follows
            return
        self._has_head = True
        if self._headless:
            self._end()

    def on_body(self, body: bytes) -> None:
        if not self._headless:
            self._chunks.append(body)
            self._buffered += len(body)

    def on_message_complete(self) -> None:
        if not self._has_head or self._headless:
            return
        self._end()
        # To be asked here and now: the parser forgets it when it returns.
        self.reusable = self._parser.should_keep_alive() and self._has_length

    def _end(self) -> None:
        self._complete = True
        self._is_due = False


class UpstreamClient:
    """Connections to every model's process. Owned by one event loop."""

    def __init__(self) -> None:
        self._all: set[Response] = set()
        self._idle: dict[Endpoint, list[Response]] = {}

    @asynccontextmanager
    async def request(
        self, endpoint: Endpoint, request: UpstreamRequest, timeouts: Timeouts
    ) -> AsyncIterator[Response]:
        """Send a request; the answer's head has arrived when the block begins, and leaving it early aborts the rest.

        Raises UpstreamFailed when the process cannot be reached or breaks off, DeadlineExceeded for a phase's limit.
        """
        response = await self._answered(endpoint, request.to(endpoint), timeouts)
        try:
            yield response
        finally:
            self._release(response)

    async def get(self, endpoint: Endpoint, path: str, limit_s: float) -> bytes:
        """The body of a small document with status 200. Raises UpstreamFailed, DeadlineExceeded."""
        timeouts = Timeouts(limit_s, limit_s, limit_s)
        async with self.request(endpoint, UpstreamRequest("GET", path.encode()), timeouts) as response:
            body = await response.read()
        if response.status != 200:
            raise UpstreamFailed(f"{path} was answered with status {response.status}.")
        return body

    def close(self) -> None:
        """Close every connection at once; answers being read break off."""
        for response in tuple(self._all):
            response.abort()

    async def _answered(self, endpoint: Endpoint, request: UpstreamRequest, timeouts: Timeouts) -> Response:
        for connection in (self._take(endpoint), None):
            response = connection or await self._connect(endpoint, timeouts.connect_s)
            answered = False
            try:
                answered = await response.begin(request, timeouts)
            finally:
                if not answered:
                    response.abort()
            if answered:
                return response
        raise AssertionError("unreachable: a new connection answers or raises")

    async def _connect(self, endpoint: Endpoint, limit_s: float) -> Response:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(limit_s):
                _, response = await loop.create_connection(
                    lambda: Response(endpoint, self._forget), endpoint.host, endpoint.port
                )
        except TimeoutError:
            raise DeadlineExceeded(f"The model's process accepted no connection within {limit_s:g} s.") from None
        except OSError as error:
            raise UpstreamFailed(f"The model's process cannot be reached: {error}") from error
        if not response.lost:
            self._all.add(response)
        return response

    def _take(self, endpoint: Endpoint) -> Response | None:
        idle = self._idle.get(endpoint)
        return idle.pop() if idle else None

    def _release(self, response: Response) -> None:
        idle = self._idle.setdefault(response.endpoint, [])
        if response.ended and response.reusable and not response.lost and len(idle) < MAX_IDLE:
            response.rest()
            idle.append(response)
        else:
            response.abort()

    def _forget(self, response: Response) -> None:
        self._all.discard(response)
        idle = self._idle.get(response.endpoint, [])
        if response in idle:
            idle.remove(response)
        if not idle:
            self._idle.pop(response.endpoint, None)
