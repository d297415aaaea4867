"""The router's own routes: its list of models, load, unload, and the stream of events."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

from llama_async_proxy.engines.exchange import Exchange, NotHttp, exchange
from llama_async_proxy.engines.router_schema import NotARouter, RouterModel, parse_models
from llama_async_proxy.records.runtime import Endpoint

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


class EventStream:
    """The `data` of one event after the other."""

    def __init__(self, sent: Exchange) -> None:
        self._sent = sent

    async def next(self) -> str:
        """Wait for an event. May be cancelled without losing one. Raises RouterUnreachable when the stream ends."""
        body = self._sent.answer.body
        while True:
            while (end := body.find(b"\n\n")) >= 0:
                event = bytes(body[:end]).decode(errors="replace")
                del body[: end + 2]
                if data := [
                    line.removeprefix("data:").strip() for line in event.split("\n") if line.startswith("data:")
                ]:
                    return "\n".join(data)
            if self._sent.answer.is_complete:
                raise RouterUnreachable("it has ended its event stream")
            with _reachable():
                if not await self._sent.more():
                    raise RouterUnreachable("it has closed its event stream")


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
        with _reachable():
            async with exchange(self.endpoint, "GET", "/models/sse", accept="text/event-stream") as sent:
                try:
                    async with asyncio.timeout(HEAD_S):
                        while not sent.answer.has_head and await sent.more():
                            pass
                except TimeoutError:
                    raise NoEvents from None
                if sent.answer.status != 200 or not sent.answer.content_type.startswith(b"text/event-stream"):
                    raise NoEvents
                yield EventStream(sent)

    async def _call(self, method: str, target: str, body: object = None) -> object:
        content = b"" if body is None else json.dumps(body).encode()
        with _reachable():
            async with asyncio.timeout(TIMEOUT_S), exchange(self.endpoint, method, target, content) as sent:
                answer = await sent.whole(MAX_ANSWER)
        try:
            document = json.loads(answer.body)
        except ValueError as exc:
            raise RouterUnreachable("what answers there is no router") from exc
        if answer.status != 200:
            raise RouterRefused(_message(document) or f"HTTP status {answer.status}")
        return document


@contextmanager
def _reachable() -> Iterator[None]:
    """Faults of the connection as ours."""
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
