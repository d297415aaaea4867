"""Requests to models' processes whose responses a task awaits chunk by chunk."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from msgspec import Struct
from msgspec.structs import replace

from llama_async_proxy.errors import DeadlineExceeded, ServiceError, UpstreamFailed
from llama_async_proxy.inference.upstream.connection import UpstreamConnection
from llama_async_proxy.inference.upstream.connection_pool import ConnectionPool
from llama_async_proxy.inference.upstream.model_field import body_for, target_for
from llama_async_proxy.inference.upstream.response_headers import Header, ResponseHead
from llama_async_proxy.records.runtime import Endpoint

_MAX_BUFFERED = 256 * 1024
"""Bytes of a response that wait for a slow reader; above it the socket is not read."""


class UpstreamRequest(Struct, frozen=True):
    """A request to an engine. `headers` lack host, content-length and the hop-by-hop ones; `target` is path and query
    as on the request line."""

    method: str
    target: bytes
    headers: Sequence[tuple[bytes, bytes]] = ()
    body: bytes = b""

    def to(self, endpoint: Endpoint) -> UpstreamRequest:
        """The request as the server at `endpoint` needs it: a router is told the model, others get it unchanged."""
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
    """The header with the endpoint's API key; empty if it needs none."""
    return () if endpoint.api_key is None else ((b"authorization", b"Bearer " + endpoint.api_key.encode()),)


def authority(endpoint: Endpoint) -> bytes:
    """Host and port as in a Host header."""
    host = endpoint.host.encode()
    return b"[%b]:%d" % (host, endpoint.port) if b":" in host else b"%b:%d" % (host, endpoint.port)


class UpstreamResponse:
    """One response, as it comes in. One task reads it."""

    def __init__(self, pool: ConnectionPool, endpoint: Endpoint, request: UpstreamRequest) -> None:
        self.head: ResponseHead
        """Head of the response, once `begin` has returned."""
        self._has_head = False
        self._pool = pool
        self._endpoint = endpoint
        self._request = request
        self._connection: UpstreamConnection | None = None
        """None when the response is complete or was given up."""
        self._is_whole = False
        self._chunks: list[bytes] = []
        self._buffered = 0
        self._failure: ServiceError | None = None
        self._waiter: asyncio.Future[None] | None = None

    # --- for the reader ---------------------------------------------------------------------------

    @property
    def status(self) -> int:
        return self.head.status

    @property
    def headers(self) -> Sequence[Header]:
        """Headers with names in lower case, in the order received."""
        return self.head.headers

    @property
    def ended(self) -> bool:
        """Every byte of the response has been read."""
        return self._is_whole and not self._chunks

    async def read(self) -> bytes:
        """The bytes that have come in since the last call, without chunk framing; waits for at least one. Empty at the
        end.

        Raises UpstreamFailed when the response breaks off, DeadlineExceeded when it pauses for too long.
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
        """Send the request and wait for the head of the response. Raises as `read`, and UpstreamFailed when the engine
        cannot be reached."""
        self._when_ready(self._pool.take(self._endpoint))
        while not self._has_head:
            await self._more()

    def close(self) -> None:
        """Give up the rest of the response; the connection is closed unless the response is complete."""
        if self._connection is not None:
            self._connection.abort()
            self._connection = None

    async def _more(self) -> None:
        """Wait for the next event of the connection. Raises the failure that has happened before."""
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

    # --- ResponseListener ---------------------------------------------------------------------------

    def on_ready(self, connection: UpstreamConnection) -> None:
        sent = self._request.head(self._endpoint) + self._request.body
        connection.send(sent, self._pool.settings(), chunks=True, raw=False)

    def on_answer(self, *_: object) -> None:
        raise AssertionError("unreachable: heads are not looked up when chunks are asked for")

    def on_chunk(self, chunk: bytes) -> None:
        self._chunks.append(chunk)
        self._buffered += len(chunk)

    def on_head(self, head: ResponseHead, raw: bytes) -> None:
        self.head = head
        self._has_head = True
        if self._request.method == "HEAD":
            self._chunks.clear()
            self._is_whole = True
            self.close()  # the connection would wait for a body
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
        if connection.was_stale:
            self._when_ready(self._pool.connect(self._endpoint))
        else:
            self.on_failure(error)

    def on_failure(self, error: ServiceError) -> None:
        self._failure = error
        self.close()
        self._wake()


class UpstreamClient:
    """Sends requests to models' processes for tasks that await the response."""

    def __init__(self, pool: ConnectionPool) -> None:
        self._pool = pool
        self.plain_endpoints = pool.plain_endpoints

    @asynccontextmanager
    async def request(self, endpoint: Endpoint, request: UpstreamRequest) -> AsyncIterator[UpstreamResponse]:
        """Send a request. The head of the response has arrived when the block begins; leaving the block early aborts
        the rest.

        Raises UpstreamFailed when the process cannot be reached or breaks off, DeadlineExceeded when connecting, the
        first byte or a pause takes too long. A whole response has no time limit.
        """
        response = UpstreamResponse(self._pool, endpoint, request.to(endpoint))
        try:
            await response.begin()
            yield response
        finally:
            response.close()

    async def get(self, endpoint: Endpoint, path: str, limit_s: float) -> bytes:
        """The body of a small document, within `limit_s` seconds. Raises DeadlineExceeded, and UpstreamFailed also for
        another status than 200."""
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
