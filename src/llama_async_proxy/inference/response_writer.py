"""Handing one answer to its client: the engine's bytes as they come, or an error in whatever form still fits."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from typing import Protocol

from msgspec import Struct

from llama_async_proxy.errors import Overloaded, ServiceError
from llama_async_proxy.inference.request_log import RequestLogEntry
from llama_async_proxy.inference.requests.error_formats import ApiFormat, error_body, error_event, relayed_error_event
from llama_async_proxy.inference.streaming import sse
from llama_async_proxy.inference.streaming.aggregator import AggregatedAnswer, StreamAggregator
from llama_async_proxy.inference.streaming.prompt_progress import PromptProgressFilter
from llama_async_proxy.inference.upstream.client import UpstreamResponse
from llama_async_proxy.inference.upstream.response_headers import Header, for_client

REQUEST_ID = b"x-request-id"
_EARLY_HEADERS: Sequence[Header] = (
    (b"content-type", sse.CONTENT_TYPE),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
)
_JSON = (b"content-type", b"application/json; charset=utf-8")
_OF_STREAMS = frozenset((b"content-type", b"x-accel-buffering"))
_MAX_ERROR_BODY = 64 * 1024


class Reply(Protocol):
    """The client's end of a request. Both calls wait while the client reads more slowly than we write."""

    async def start(self, status: int, headers: Sequence[Header]) -> None: ...
    async def write(self, chunk: bytes, *, more: bool) -> None: ...


class KeepAliveComments(Struct, frozen=True):
    """What a streaming client sees while its model loads."""

    hold_s: float = 5.0
    """Its head is held back that long, so that most failures still get a status of their own."""
    comment_s: float = 3.0
    """After that it has a 200 and gets a comment this often: silent connections are cut by many proxies."""


def aggregated_headers(headers: Iterable[Header], answer: AggregatedAnswer) -> list[Header]:
    """The headers of a stream as its reassembled answer has them."""
    kept = [header for header in for_client(headers) if header[0] not in _OF_STREAMS]
    return [*kept, _JSON, (b"content-length", b"%d" % len(answer.body))]


class ResponseWriter:
    def __init__(self, reply: Reply, api_format: ApiFormat, entry: RequestLogEntry) -> None:
        self._reply = reply
        self._api_format = api_format
        self._entry = entry
        self._has_started = False
        self._last = b""
        """End of what was written, to know whether an event is open."""

    async def send_keep_alive_comments(self, keep_alive: KeepAliveComments) -> None:
        """While the client waits: nothing at first, then a stream of comments, until cancelled."""
        await asyncio.sleep(keep_alive.hold_s)
        await self._start(200, _EARLY_HEADERS)
        while True:
            await self._write(sse.COMMENT_LOADING)
            await asyncio.sleep(keep_alive.comment_s)

    async def relay(self, response: UpstreamResponse, progress_filter: PromptProgressFilter | None = None) -> None:
        """Pass on a whole answer. Raises what the response raises; `fail` then says so to the client."""
        is_stream = response.status == 200 and sse.is_event_stream(response.headers)
        if self._has_started and not is_stream:
            await self._relay_as_event(response)
            return
        if not is_stream:
            progress_filter = None
        if progress_filter is None and not self._has_started:
            await self._start(response.status, for_client(response.headers))
        async for chunk, more in _chunks(response, progress_filter):
            if not self._has_started:  # held back, as what fails before the first token has a status of its own
                await self._start(response.status, for_client(response.headers))
            self._entry.received(chunk)
            await self._write(chunk, more=more)

    async def reassemble(self, response: UpstreamResponse, aggregator: StreamAggregator) -> None:
        """Hand over a stream as one answer. Raises CannotAggregate before anything has left, and as `relay`."""
        if not can_aggregate(response.status, response.headers):
            await self.relay(response)
            return
        while not response.ended:
            chunk = await response.read()
            aggregator.feed(chunk)
            if aggregator.is_generating:
                self._entry.received(chunk)
        answer = aggregator.answer()
        await self._start(answer.status, aggregated_headers(response.headers, answer))
        await self._write(answer.body, more=False)

    async def _relay_as_event(self, response: UpstreamResponse) -> None:
        """The head of a stream has left already, but the engine answered with an error."""
        body = b""
        while not response.ended and len(body) < _MAX_ERROR_BODY:
            body += await response.read()
        event, self._entry.error = relayed_error_event(self._api_format, body)
        await self._write(event, more=False)

    async def fail(self, error: ServiceError) -> None:
        """Tell the client, if its answer can still carry it; else it stays incomplete, for the caller to cut off."""
        self._entry.error = error.message
        if not self._has_started:
            body = error_body(self._api_format, error)
            await self._start(error.status, error_headers(error, body))
            await self._write(body, more=False)
        elif self._entry.streamed:
            await self._write(sse.closing(self._last) + error_event(self._api_format, error), more=False)

    async def _start(self, status: int, headers: Sequence[Header]) -> None:
        self._entry.status = status
        self._entry.streamed = sse.is_event_stream(headers)
        await self._reply.start(status, [*headers, (REQUEST_ID, self._entry.id.encode())])
        self._has_started = True

    async def _write(self, chunk: bytes, *, more: bool = True) -> None:
        await self._reply.write(chunk, more=more)
        self._last = chunk


async def _chunks(
    response: UpstreamResponse, progress_filter: PromptProgressFilter | None
) -> AsyncIterator[tuple[bytes, bool]]:
    """What of a body is for the client, as it comes, and whether more follows."""
    more = True
    while more:
        chunk = await response.read()
        more = not response.ended
        if progress_filter is not None:
            chunk = progress_filter.feed(chunk) if more else progress_filter.feed(chunk) + progress_filter.rest()
        if chunk or not more:
            yield chunk, more


def can_aggregate(status: int, headers: Iterable[Header]) -> bool:
    """False for an error before the first token, which is an answer of its own."""
    return status == 200 and sse.is_event_stream(headers)


def error_headers(error: ServiceError, body: bytes) -> list[Header]:
    headers = [_JSON, (b"content-length", b"%d" % len(body))]
    if isinstance(error, Overloaded):
        headers.append((b"retry-after", b"%d" % error.retry_after_s))
    return headers
