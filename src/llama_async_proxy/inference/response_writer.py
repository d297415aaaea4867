"""Response of the slow path: the outputs of its relay, written to a client that is awaited."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import Protocol

from msgspec import Struct

from llama_async_proxy.inference.relay import Relay
from llama_async_proxy.inference.request_log import RequestLogEntry
from llama_async_proxy.inference.requests.routes import InferenceRoute
from llama_async_proxy.inference.upstream.client import UpstreamResponse
from llama_async_proxy.inference.upstream.response_headers import Header, ResponseHead, for_client

_REQUEST_ID = b"x-request-id"


class Reply(Protocol):
    """The client's end of a request. Both calls wait while the client reads more slowly than the service writes."""

    async def start(self, status: int, headers: Sequence[Header]) -> None: ...
    async def write(self, chunk: bytes, *, more: bool) -> None: ...


class KeepAliveComments(Struct, frozen=True):
    """Comments that keep a streaming client connected while its model loads."""

    hold_s: float = 5.0
    """Seconds before the stream starts with status 200; most failures come earlier and get a status of their own."""
    comment_s: float = 3.0
    """Seconds between two comments; many proxies cut silent connections."""


class ResponseWriter(Relay):
    """One request on the slow path. The relay's outputs are queued, and `flush` writes them."""

    def __init__(self, route: InferenceRoute, entry: RequestLogEntry, reply: Reply) -> None:
        self._queue: deque[bytes] = deque()
        super().__init__(route, entry, self._queue.append)
        self._reply_to = reply
        self._pending_start: tuple[int, list[Header]] | None = None
        self._is_whole = False

    async def relay(self, response: UpstreamResponse) -> None:
        """Pass on a response of the engine. Raises the errors of `response`; `fail` then tells the client."""
        self.on_head(response.head, b"")
        await self.flush()
        while self.is_reading:
            if data := await response.read():
                self.on_body(data)
            if response.ended and self.is_reading:
                self.complete()
            await self.flush()

    async def keep_alive(self, comments: KeepAliveComments) -> None:
        """Start the stream early and write comments, until cancelled."""
        await asyncio.sleep(comments.hold_s)
        self.start_early()
        while True:
            self.comment()
            await self.flush()
            await asyncio.sleep(comments.comment_s)

    async def flush(self) -> None:
        """Write the queued outputs. An output stays queued until it was written, in case the task is cancelled."""
        if self._pending_start is not None:
            await self._reply_to.start(*self._pending_start)
            self._pending_start = None
        while self._queue:
            is_last = self._is_whole and len(self._queue) == 1
            await self._reply_to.write(self._queue[0], more=not is_last)
            self._queue.popleft()

    # --- outputs of the relay -----------------------------------------------------------------------

    def start(self, head: ResponseHead, body: bytes, length: int | None) -> None:  # noqa: ARG002 - the server frames
        self._pending_start = (head.status, [*for_client(head.headers), (_REQUEST_ID, self.entry.id.encode())])
        if body:
            self.write(body)

    def reply(self, status: int, headers: Sequence[Header], body: bytes) -> None:
        self._pending_start = (status, [*headers, (_REQUEST_ID, self.entry.id.encode())])
        self.write(body)

    def ask_again(self) -> None:
        """Do nothing: the owner sends the request until the relay `has_ended`."""

    def end(self, *, whole: bool) -> None:
        self._is_whole = whole
        if whole and not self._queue:
            self.write(b"")
