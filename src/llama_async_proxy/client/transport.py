"""The clients: an exchange over a socket, once for threads and once for asyncio."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator, Iterator
from typing import Any, TypeVar

from llama_async_proxy.client.errors import ConnectionFailed
from llama_async_proxy.client.exchange import Address, Answer, Event, Request

T = TypeVar("T")
DEFAULT_URL = "http://127.0.0.1:3000"
TIMEOUT_S = 600.0
"""Without a byte: a load may take minutes."""
_PIECE = 1 << 16


class Client:
    """Calls the service and waits. Holds no connection, so it may be shared by threads and needs no closing.

    `timeout_s` is how long to wait for the next byte. Raises ValueError for a URL that is none.
    """

    def __init__(self, url: str = DEFAULT_URL, *, api_key: str | None = None, timeout_s: float = TIMEOUT_S) -> None:
        self._address = Address.parse(url, api_key)
        self._timeout_s = timeout_s

    def send(self, request: Request[T]) -> T:
        """Raises ApiError."""
        answer = Answer()
        with self._connection(request) as connection:
            while not answer.is_complete:
                answer.feed(self._received(connection))
        return answer.result(request)

    def stream(self, request: Request[Any]) -> Iterator[Event]:
        """The events of a streamed answer as they come. Raises ApiError. Leaving the loop closes the connection."""
        answer = Answer()
        with self._connection(request) as connection:
            while not answer.is_complete:
                answer.feed(self._received(connection))
                if answer.is_stream:
                    yield from answer.events()
        if not answer.is_stream:
            answer.result(request)

    @contextlib.contextmanager
    def _connection(self, request: Request[Any]) -> Iterator[socket.socket]:
        address = self._address
        try:
            plain = socket.create_connection((address.host, address.port), self._timeout_s)
        except OSError as exc:
            raise _unreachable(address, exc) from exc
        with plain, _secured(plain, address) as connection:
            connection.sendall(address.encode(request))
            yield connection

    def _received(self, connection: socket.socket) -> bytes:
        try:
            return connection.recv(_PIECE)
        except OSError as exc:
            raise ConnectionFailed(f"The answer broke off: {exc}") from exc


def _secured(plain: socket.socket, address: Address) -> contextlib.AbstractContextManager[socket.socket]:
    if address.scheme == "http":
        return contextlib.nullcontext(plain)
    return ssl.create_default_context().wrap_socket(plain, server_hostname=address.host)


class AsyncClient:
    """The same for asyncio: cancelling a call closes its connection."""

    def __init__(self, url: str = DEFAULT_URL, *, api_key: str | None = None, timeout_s: float = TIMEOUT_S) -> None:
        self._address = Address.parse(url, api_key)
        self._timeout_s = timeout_s

    async def send(self, request: Request[T]) -> T:
        """Raises ApiError."""
        answer = Answer()
        async with self._connection(request) as reader:
            while not answer.is_complete:
                answer.feed(await self._received(reader))
        return answer.result(request)

    async def stream(self, request: Request[Any]) -> AsyncIterator[Event]:
        """The events of a streamed answer as they come. Raises ApiError. Closing the iterator closes the connection."""
        answer = Answer()
        async with self._connection(request) as reader:
            while not answer.is_complete:
                answer.feed(await self._received(reader))
                if answer.is_stream:
                    for event in answer.events():
                        yield event
        if not answer.is_stream:
            answer.result(request)

    @contextlib.asynccontextmanager
    async def _connection(self, request: Request[Any]) -> AsyncIterator[asyncio.StreamReader]:
        address = self._address
        secured = ssl.create_default_context() if address.scheme == "https" else None
        try:
            async with asyncio.timeout(self._timeout_s):
                reader, writer = await asyncio.open_connection(address.host, address.port, ssl=secured)
        except OSError as exc:
            raise _unreachable(address, exc) from exc
        try:
            writer.write(address.encode(request))
            await writer.drain()
            yield reader
        finally:
            writer.close()

    async def _received(self, reader: asyncio.StreamReader) -> bytes:
        try:
            async with asyncio.timeout(self._timeout_s):
                return await reader.read(_PIECE)
        except OSError as exc:
            raise ConnectionFailed(f"The answer broke off: {exc}") from exc


def _unreachable(address: Address, reason: OSError) -> ConnectionFailed:
    return ConnectionFailed(f"Nobody answers at {address.scheme}://{address.host}:{address.port}: {reason}")
