"""Minimal HTTP client for loopback: one request per connection, used to ask model servers and routers."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httptools

from llama_async_proxy.records.runtime import Endpoint


class NotHttp(ValueError):
    """The server does not speak HTTP."""


class HttpResponse:
    """A response that is parsed while its bytes arrive."""

    def __init__(self) -> None:
        self.has_headers = self.is_complete = False
        self.content_type = b""
        self.body = bytearray()
        self._parser = httptools.HttpResponseParser(self)

    @property
    def status(self) -> int:
        return int(self._parser.get_status_code())

    def feed(self, data: bytes) -> None:
        """Parse the next bytes. Raises NotHttp."""
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as exc:
            raise NotHttp(f"it does not speak HTTP: {exc}") from exc

    def on_header(self, name: bytes, value: bytes) -> None:
        if name.lower() == b"content-type":
            self.content_type = value

    def on_headers_complete(self) -> None:
        self.has_headers = True

    def on_body(self, body: bytes) -> None:
        self.body += body

    def on_message_complete(self) -> None:
        self.is_complete = True


class HttpExchange:
    """A connection on which one request has been sent."""

    def __init__(self, reader: asyncio.StreamReader) -> None:
        self.response = HttpResponse()
        self._reader = reader

    async def read_more(self) -> bool:
        """Wait for more of the response. Returns False when the server has closed. Raises OSError, NotHttp."""
        data = await self._reader.read(65536)
        if data:
            self.response.feed(data)
        return bool(data)

    async def read_all(self, limit: int) -> HttpResponse:
        """Read the whole response, or up to `limit` bytes of its body. Raises OSError, NotHttp."""
        while not self.response.is_complete and len(self.response.body) < limit and await self.read_more():
            pass
        if not self.response.has_headers:
            raise NotHttp("it has closed the connection without an answer")
        return self.response


@asynccontextmanager
async def send_request(
    endpoint: Endpoint, method: str, target: str, content: bytes = b"", accept: str = "*/*"
) -> AsyncIterator[HttpExchange]:
    """Send a request with an optional JSON body. Raises OSError. Leaving the block closes the connection."""
    reader, writer = await asyncio.open_connection(endpoint.host, endpoint.port)
    connection: socket.socket = writer.get_extra_info("socket")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)  # An event stream may be silent for long.
    host = f"[{endpoint.host}]" if ":" in endpoint.host else endpoint.host
    lines = [f"{method} {target} HTTP/1.1", f"host: {host}:{endpoint.port}", f"accept: {accept}", "connection: close"]
    if endpoint.api_key is not None:
        lines.append(f"authorization: Bearer {endpoint.api_key}")
    if content:
        lines += ["content-type: application/json", f"content-length: {len(content)}"]
    try:
        writer.write("\r\n".join([*lines, "", ""]).encode() + content)
        yield HttpExchange(reader)
    finally:
        writer.transport.abort()  # The request was sent and the response is no longer needed.
