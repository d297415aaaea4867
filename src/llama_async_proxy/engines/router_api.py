"""The router's own routes: its list of models, load, unload, and the stream of events."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httptools

from llama_async_proxy.engines.router_wire import NotARouter, RouterModel, parse_models
from llama_async_proxy.records import Endpoint

TIMEOUT_S = 10.0
HEAD_S = 5.0
"""For the head of the event stream; a router that has none may hold the connection without an answer."""
MAX_ANSWER = 64 << 20
"""Bytes; the list carries every model's arguments and preset."""


class RouterError(Exception):
    """The router did not do as asked; the message says why, without naming it."""


class RouterUnreachable(RouterError):
    """Nothing answers there, or something that is no router."""


class RouterRefused(RouterError):
    """The router has answered with an error; the message is its own."""


class NoEvents(Exception):
    """This router has no event stream."""


class _Answer:
    """Fed with bytes, what an HTTP answer holds."""

    def __init__(self) -> None:
        self.has_head = self.is_complete = False
        self.content_type = b""
        self.body = bytearray()
        self._parser = httptools.HttpResponseParser(self)

    @property
    def status(self) -> int:
        return int(self._parser.get_status_code())

    def feed(self, data: bytes) -> None:
        """Raises RouterUnreachable for what is no HTTP."""
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as exc:
            raise RouterUnreachable(f"it does not speak HTTP: {exc}") from exc

    def on_header(self, name: bytes, value: bytes) -> None:
        if name.lower() == b"content-type":
            self.content_type = value

    def on_headers_complete(self) -> None:
        self.has_head = True

    def on_body(self, body: bytes) -> None:
        self.body += body

    def on_message_complete(self) -> None:
        self.is_complete = True


class EventStream:
    """The `data` of one event after the other."""

    def __init__(self, reader: asyncio.StreamReader, answer: _Answer) -> None:
        self._reader = reader
        self._answer = answer

    async def next(self) -> str:
        """Wait for an event. May be cancelled without losing one. Raises RouterUnreachable when the stream ends."""
        while True:
            end = self._answer.body.find(b"\n\n")
            if end >= 0:
                event = bytes(self._answer.body[:end]).decode(errors="replace")
                del self._answer.body[: end + 2]
                if data := [
                    line.removeprefix("data:").strip() for line in event.split("\n") if line.startswith("data:")
                ]:
                    return "\n".join(data)
                continue
            if self._answer.is_complete:
                raise RouterUnreachable("it has ended its event stream")
            await _receive(self._reader, self._answer)


class RouterApi:
    """Each call is one connection. Raises RouterUnreachable, RouterRefused."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint

    async def is_healthy(self) -> bool:
        """True when something answers there that it is well."""
        try:
            await self._call("GET", "/health")
        except RouterError:
            return False
        return True

    async def models(self, *, reload: bool = False) -> tuple[RouterModel, ...]:
        """Every model it knows. `reload`: it reads its presets anew first, and unloads models whose preset changed."""
        document = await self._call("GET", "/models?reload=1" if reload else "/models")
        try:
            return parse_models(document)
        except NotARouter as exc:
            raise RouterUnreachable(f"what answers there {exc}") from exc

    async def load(self, name: str) -> None:
        """Returns before the model is loaded. A model that runs already is no error."""
        try:
            await self._call("POST", "/models/load", {"model": name})
        except RouterRefused as refusal:
            if "already running" not in str(refusal):
                raise

    async def unload(self, name: str) -> None:
        """Returns before the model is unloaded. A model that does not run is no error."""
        try:
            await self._call("POST", "/models/unload", {"model": name})
        except RouterRefused as refusal:
            if "not running" not in str(refusal):
                raise

    @asynccontextmanager
    async def events(self) -> AsyncIterator[EventStream]:
        """What happens from now on. Raises NoEvents when the router does not tell."""
        async with self._connected() as (reader, writer):
            writer.write(self._head("GET", "/models/sse", b"", b"accept: text/event-stream\r\n"))
            answer = _Answer()
            try:
                async with asyncio.timeout(HEAD_S):
                    while not answer.has_head:
                        await _receive(reader, answer)
            except TimeoutError:
                raise NoEvents from None
            if answer.status != 200 or not answer.content_type.startswith(b"text/event-stream"):
                raise NoEvents
            yield EventStream(reader, answer)

    async def _call(self, method: str, target: str, body: object = None) -> object:
        content = b"" if body is None else json.dumps(body).encode()
        answer = _Answer()
        try:
            async with asyncio.timeout(TIMEOUT_S), self._connected() as (reader, writer):
                writer.write(self._head(method, target, content) + content)
                while not answer.is_complete and len(answer.body) < MAX_ANSWER:
                    await _receive(reader, answer)
        except TimeoutError:
            raise RouterUnreachable(f"it did not answer within {TIMEOUT_S:g} s") from None
        try:
            document = json.loads(answer.body)
        except ValueError as exc:
            raise RouterUnreachable("what answers there is no router") from exc
        if answer.status != 200:
            raise RouterRefused(_message(document) or f"HTTP status {answer.status}")
        return document

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
        try:
            reader, writer = await asyncio.open_connection(self.endpoint.host, self.endpoint.port)
        except OSError as exc:
            raise RouterUnreachable(f"it cannot be reached: {exc.strerror or exc}") from exc
        connection: socket.socket = writer.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        try:
            yield reader, writer
        finally:
            writer.transport.abort()

    def _head(self, method: str, target: str, content: bytes, more: bytes = b"") -> bytes:
        host = f"[{self.endpoint.host}]" if ":" in self.endpoint.host else self.endpoint.host
        length = b"content-type: application/json\r\ncontent-length: %d\r\n" % len(content) if content else b""
        line = f"{method} {target} HTTP/1.1\r\nhost: {host}:{self.endpoint.port}\r\n".encode()
        return line + length + more + b"\r\n"


async def _receive(reader: asyncio.StreamReader, answer: _Answer) -> None:
    try:
        data = await reader.read(65536)
    except OSError as exc:
        raise RouterUnreachable(f"the connection broke: {exc.strerror or exc}") from exc
    if not data:
        raise RouterUnreachable("it has closed the connection")
    answer.feed(data)


def _message(document: object) -> str | None:
    error = document.get("error") if isinstance(document, dict) else None
    message = error.get("message") if isinstance(error, dict) else None
    return message if isinstance(message, str) else None
