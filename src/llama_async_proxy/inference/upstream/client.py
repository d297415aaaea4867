"""Requests to models' processes, and answers that are awaited piece by piece."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

from llama_async_proxy.errors import DeadlineExceeded, ServiceError, UpstreamFailed
from llama_async_proxy.inference.upstream.connection import UpstreamConnection
from llama_async_proxy.inference.upstream.connection_pool import ConnectionPool
from llama_async_proxy.inference.upstream.model_field import body_for, target_for
from llama_async_proxy.inference.upstream.response_headers import Header, ResponseHead
from llama_async_proxy.records.runtime import Endpoint

_MAX_BUFFERED = 256 * 1024
"""Bytes of an answer waiting for a slow reader; above it the socket is not read."""


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
        lines += [b"%b: %b" % header for header in (*self.headers, *authorization(endpoint))]
        if self.body or self.method == "POST":
            lines.append(b"content-length: %d" % len(self.body))
        return b"\r\n".join(lines) + b"\r\n\r\n"


def authorization(endpoint: Endpoint) -> tuple[Header, ...]:
    """The header that opens it, if it needs one."""
    return () if endpoint.api_key is None else ((b"authorization", b"Bearer " + endpoint.api_key.encode()),)


def authority(endpoint: Endpoint) -> bytes:
    """As a Host header has it."""
    host = endpoint.host.encode()
    return b"[%b]:%d" % (host, endpoint.port) if b":" in host else b"%b:%d" % (host, endpoint.port)


class UpstreamResponse:
    """One answer, as it comes in. Read by one task."""

    def __init__(self, pool: ConnectionPool, endpoint: Endpoint, request: UpstreamRequest) -> None:
        self.status = 0
        self.headers: Sequence[Header] = ()
        """Names in lower case, in the order received."""
        self._pool = pool
        self._endpoint = endpoint
        self._request = request
        self._connection: UpstreamConnection | None = None
        """None when it has no more to say."""
        self._is_whole = False
        self._chunks: list[bytes] = []
        self._buffered = 0
        self._failure: ServiceError | None = None
        self._waiter: asyncio.Future[None] | None = None

    # --- for the reader ---------------------------------------------------------------------------

    @property
    def ended(self) -> bool:
        """Every byte of the answer has been read."""
        return self._is_whole and not self._chunks

    async def read(self) -> bytes:
        """What has come in since the last call, waiting for at least one byte; empty at the end.

        Raises UpstreamFailed when the answer breaks off, DeadlineExceeded when it pauses for too long.
        """
        while not self._chunks:
            if self._is_whole:
                return b""
            await self._more()
        data = self._chunks[0] if len(self._chunks) == 1 else b"".join(self._chunks)
        self._chunks.clear()
        self._buffered = 0
        if self._connection is not None:
            self._connection.set_paused(False)
        return data

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while chunk := await self.read():
            yield chunk

    # --- for the client ---------------------------------------------------------------------------

    async def begin(self) -> None:
        """Send the request and wait for the head of the answer. Raises as `read`, and when nobody can be reached."""
        self._when_ready(self._pool.take(self._endpoint))
        while not self.status:
            await self._more()

    def close(self) -> None:
        """What is still coming is thrown away."""
        if self._connection is not None:
            self._connection.abort()
            self._connection = None

    async def _more(self) -> None:
        """Wait until something happens. Raises what has gone wrong before."""
        if self._failure is not None:
            raise self._failure
        self._waiter = self._pool.loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _when_ready(self, connection: UpstreamConnection) -> None:
        self._connection = connection
        connection.when_ready(self)

    # --- what the connection says -----------------------------------------------------------------

    def on_ready(self, connection: UpstreamConnection) -> None:
        sent = self._request.head(self._endpoint) + self._request.body
        connection.send(sent, self._pool.settings(), chunks=True, raw=False)

    def on_answer(self, *_: object) -> None:
        raise AssertionError("unreachable: no head is looked up for who asks for pieces")

    def on_chunk(self, chunk: bytes) -> None:
        self._chunks.append(chunk)
        self._buffered += len(chunk)

    def on_head(self, head: ResponseHead, raw: bytes) -> None:
        self.status, self.headers = head.status, head.headers
        if self._request.method == "HEAD":
            self._chunks.clear()
            self._is_whole = True
            self.close()  # the channel waits for a body
        elif head.length is None:
            self._pool.connect_ahead(self._endpoint)
        self.on_body(raw)

    def on_body(self, _raw: bytes) -> None:
        if self._buffered > _MAX_BUFFERED and self._connection is not None:
            self._connection.set_paused(True)
        self._wake()

    def on_complete(self, connection: UpstreamConnection) -> None:
        self._connection = None
        self._is_whole = True
        self._pool.put_back(connection)
        self._wake()

    def on_disconnect(self, connection: UpstreamConnection, error: ServiceError) -> None:
        if connection.reused and not connection.has_answered:
            self._when_ready(self._pool.connect(self._endpoint))
        else:
            self.on_failure(error)

    def on_failure(self, error: ServiceError) -> None:
        self._failure = error
        self.close()
        self._wake()


class UpstreamClient:
    """Asks models' processes for whoever awaits the answer."""

    def __init__(self, pool: ConnectionPool) -> None:
        self._pool = pool

    @asynccontextmanager
    async def request(self, endpoint: Endpoint, request: UpstreamRequest) -> AsyncIterator[UpstreamResponse]:
        """Send a request; the answer's head has arrived when the block begins, and leaving it early aborts the rest.

        Raises UpstreamFailed when the process cannot be reached or breaks off, DeadlineExceeded for a phase's limit; an
        answer as a whole may take as long as it likes.
        """
        response = UpstreamResponse(self._pool, endpoint, request.to(endpoint))
        try:
            await response.begin()
            yield response
        finally:
            response.close()

    async def get(self, endpoint: Endpoint, path: str, limit_s: float) -> bytes:
        """The body of a small document with status 200. Raises UpstreamFailed, DeadlineExceeded."""
        try:
            async with (
                asyncio.timeout(limit_s),
                self.request(endpoint, UpstreamRequest("GET", path.encode())) as response,
            ):
                body = b"".join([chunk async for chunk in response])
        except TimeoutError:
            raise DeadlineExceeded(f"{path} was not answered within {limit_s:g} s.") from None
        if response.status != 200:
            raise UpstreamFailed(f"{path} was answered with status {response.status}.")
        return body
