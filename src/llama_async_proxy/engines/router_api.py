"""Client of a llama-server router: its list of models, load, unload, and its stream of events.

The routes are those of llama.cpp b11434, tools/server/server-models.cpp.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

from llama_async_proxy.engines.http_client import HttpExchange, NotHttp, send_request
from llama_async_proxy.engines.router_schema import NotARouter, RouterModel, parse_models
from llama_async_proxy.records.runtime import Endpoint

TIMEOUT_S = 10.0
HEADERS_S = 5.0
"""Limit for the headers of the event stream. A router without events may hold the connection without an answer."""
MAX_RESPONSE = 64 << 20
"""Largest body in bytes. The list carries every model's arguments and preset."""


class RouterError(Exception):
    """The router did not do as asked. The message gives the reason, without naming the router."""


class RouterUnreachable(RouterError):
    """No router answers at the address."""


class RouterRefused(RouterError):
    """The router has answered with an error; the message is its own."""


class NoEvents(Exception):
    """The router has no event stream."""


class SseReader:
    """Reads the `data` of one server-sent event after the other."""

    def __init__(self, exchange: HttpExchange) -> None:
        self._exchange = exchange

    async def next(self) -> str:
        """Wait for an event. A cancelled call loses none. Raises RouterUnreachable when the stream ends."""
        body = self._exchange.response.body
        while True:
            while (end := body.find(b"\n\n")) >= 0:
                event = bytes(body[:end]).decode(errors="replace")
                del body[: end + 2]
                if data := [
                    line.removeprefix("data:").strip() for line in event.split("\n") if line.startswith("data:")
                ]:
                    return "\n".join(data)
            if self._exchange.response.is_complete:
                raise RouterUnreachable("it has ended its event stream")
            with _router_errors():
                if not await self._exchange.read_more():
                    raise RouterUnreachable("it has closed its event stream")


class RouterApi:
    """Calls to a router, each on a connection of its own. All raise RouterUnreachable and RouterRefused."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint

    async def is_healthy(self) -> bool:
        """True when a server answers that it is healthy."""
        try:
            await self._call("GET", "/health")
        except RouterError:
            return False
        return True

    async def models(self, *, reload: bool = False) -> tuple[RouterModel, ...]:
        """All models of the router.

        With `reload` the router first reads its presets again, and unloads the models whose preset has changed.
        """
        document = await self._call("GET", "/models?reload=1" if reload else "/models")
        try:
            return parse_models(document)
        except NotARouter as exc:
            raise RouterUnreachable(f"what answers there {exc}") from exc

    async def load(self, name: str) -> None:
        """Ask the router to load a model; returns before it is loaded. A model that runs already is no error."""
        try:
            await self._call("POST", "/models/load", {"model": name})
        except RouterRefused as refusal:
            if "already running" not in str(refusal):
                raise

    async def unload(self, name: str) -> None:
        """Ask the router to unload a model; returns before it is unloaded. A model that does not run is no error."""
        try:
            await self._call("POST", "/models/unload", {"model": name})
        except RouterRefused as refusal:
            if "not running" not in str(refusal):
                raise

    @asynccontextmanager
    async def events(self) -> AsyncIterator[SseReader]:
        """Stream of the events from now on. Raises NoEvents for a router without events."""
        with _router_errors():
            async with send_request(self.endpoint, "GET", "/models/sse", accept="text/event-stream") as exchange:
                response = exchange.response
                try:
                    async with asyncio.timeout(HEADERS_S):
                        while not response.has_headers and await exchange.read_more():
                            pass
                except TimeoutError:
                    raise NoEvents from None
                if response.status != 200 or not response.content_type.startswith(b"text/event-stream"):
                    raise NoEvents
                yield SseReader(exchange)

    async def _call(self, method: str, target: str, body: object = None) -> object:
        content = b"" if body is None else json.dumps(body).encode()
        with _router_errors():
            async with asyncio.timeout(TIMEOUT_S), send_request(self.endpoint, method, target, content) as exchange:
                response = await exchange.read_all(MAX_RESPONSE)
        try:
            document = json.loads(response.body)
        except ValueError as exc:
            raise RouterUnreachable("what answers there is no router") from exc
        if response.status != 200:
            raise RouterRefused(_message(document) or f"HTTP status {response.status}")
        return document


@contextmanager
def _router_errors() -> Iterator[None]:
    """Turn errors of the connection into RouterUnreachable."""
    try:
        yield
    except TimeoutError as exc:
        raise RouterUnreachable(f"it did not answer within {TIMEOUT_S:g} s") from exc
    except (OSError, NotHttp) as exc:
        raise RouterUnreachable(f"it cannot be reached: {getattr(exc, 'strerror', None) or exc}") from exc


def _message(document: object) -> str | None:
    error = document.get("error") if isinstance(document, dict) else None
    message = error.get("message") if isinstance(error, dict) else None
    return message if isinstance(message, str) else None
