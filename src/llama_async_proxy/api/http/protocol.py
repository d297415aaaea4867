"""uvicorn's HTTP protocol, with a fast path for inference requests whose model is ready.

Each request is examined here first. A request in plain, canonical HTTP/1.1 for a ready model is proxied on
the fast path (`inference.fast_path`). Every other request goes to uvicorn unchanged, and uvicorn rejects what is
malformed. So no HTTP is interpreted here that two parsers could read in two ways.

The protocol also limits what uvicorn does not limit: the size of request heads and the time they take.
"""

from __future__ import annotations

import asyncio
import functools
import re
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Any, cast

from msgspec import Struct, field
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from llama_async_proxy.api.body import is_too_deep
from llama_async_proxy.api.http.access import judge
from llama_async_proxy.api.http.request_headers import CachedRequestHead, RequestHeadCache, parse
from llama_async_proxy.api.memory import RequestMemory
from llama_async_proxy.errors import ServiceError
from llama_async_proxy.inference.fast_path import FastPath, ProxiedExchange
from llama_async_proxy.inference.requests.forwarding import RequestHead
from llama_async_proxy.inference.upstream.response_headers import Header
from llama_async_proxy.monitor.requests import RequestMeter, RequestToken
from llama_async_proxy.settings import Settings

MAX_HEAD = 64 * 1024
"""Bytes of a request's head, at most; Node and nginx allow 16 and 32 KiB."""
MAX_HEADERS = 200
HEAD_S = 20.0
"""Seconds for a head to arrive whole, from its first byte."""
BODY_S = 2.0
"""Seconds for a body to arrive whole on the fast path. Slower ones take the slow path, which has limits of its own."""
UNREAD_BODY_S = 10.0
"""Seconds for the rest of a body whose request was answered without it."""
_MAX_PIPELINED = 64 * 1024
"""Bytes of further requests that are kept during a response; above it the client is not read."""
_BLANK_LINE = b"\r\n\r\n"
_STATUS_LINES = {status.value: f"{status.value} {status.phrase}".encode() for status in HTTPStatus}
"""Status lines without the version."""


class FastPathParts(Struct, frozen=True):
    """The parts of the service that every connection uses."""

    fast_path: FastPath
    meter: RequestMeter
    head_cache: RequestHeadCache = field(default_factory=RequestHeadCache)
    lines: bytes = b""
    """Header lines of every answer."""
    caching: bytes = b""
    """Header field of answers to which the engine gives no Cache-Control of its own."""
    memory: RequestMemory = field(default_factory=lambda: RequestMemory(lambda: 1 << 62))


def http_protocol(parts: FastPathParts) -> type[asyncio.Protocol]:
    """The value for uvicorn's `Config(http=...)`, which only calls it."""
    return cast("type[asyncio.Protocol]", functools.partial(HttpProtocol, parts=parts))


class HttpProtocol(HttpToolsProtocol):
    """One client connection."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
        *,
        parts: FastPathParts,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._parts = parts
        self._exchange: ProxiedExchange | None = None
        self._token: RequestToken
        self._status = 0
        self._client_left = False
        self._closes = False
        self._client_is_slow = False
        """The client reads more slowly than the service writes."""
        self._last_head: CachedRequestHead | None = None
        """Head of the last request; the next one is usually the same."""
        self._default_headers: list[Header] = []
        self._default_lines = b""
        """`_default_headers` as header lines. uvicorn makes a new list when one of them changes."""
        self._buffered = bytearray()
        """Received bytes that wait for the rest of their request, or for the end of the response before it."""
        self._needed_bytes = 0
        """Length of `_buffered` from which its request is complete."""
        self._reserved = 0
        """Bytes of the memory budget that the request takes, until it is answered or given to uvicorn."""
        self._is_receiving = False
        """`_buffered` has part of a request."""
        self._is_in_head = False
        """uvicorn's parser is inside a head."""
        self._head_size = 0
        """Bytes given to uvicorn since a head began, or since the last bytes of a body: heads, chunk extensions and
        trailers."""
        self._discards_input = False
        """Input is dropped: the connection closes after the response in progress."""
        self._deadline_s = 0.0
        self._timer: asyncio.TimerHandle | None = None

    # --- asyncio.Protocol -------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.write = transport.write
        self._set_deadline(self.timeout_keep_alive)

    def data_received(self, data: bytes) -> None:
        if self._exchange is not None:
            self._buffered += data
            if len(self._buffered) > _MAX_PIPELINED:
                self.transport.pause_reading()
        elif self._buffered:
            self._buffered += data
            if len(self._buffered) >= self._needed_bytes:
                self._start_buffered_request()
        elif self._is_idle():
            self._start_request(data)
        else:
            self._pass_to_uvicorn(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self._client_left = True
        if self._timer is not None:
            self._timer.cancel()
        self._free_memory()
        if self._exchange is not None:
            self._exchange.client_left()
        super().connection_lost(exc)
        self.parser = None  # type: ignore[assignment]  # it holds this protocol, which nothing else would take apart

    def pause_writing(self) -> None:
        self._client_is_slow = True
        super().pause_writing()
        if self._exchange is not None:
            self._exchange.set_paused(True)

    def resume_writing(self) -> None:
        self._client_is_slow = False
        super().resume_writing()
        if self._exchange is not None:
            self._exchange.set_paused(False)

    def shutdown(self) -> None:
        if self._exchange is None:
            super().shutdown()
        self._closes = True

    # --- fast path or uvicorn -----------------------------------------------------------------------

    def _is_idle(self) -> bool:
        """True if uvicorn has answered all its requests and is not parsing another."""
        cycle = cast("RequestResponseCycle | None", self.cycle)  # None before the first request
        if cycle is None:
            return cast("Scope | None", self.scope) is None
        return cycle.response_complete and not cycle.more_body and cycle.scope is self.scope and not self.pipeline

    def _is_answering(self) -> bool:
        """True if uvicorn's response is incomplete."""
        cycle = cast("RequestResponseCycle | None", self.cycle)
        return cycle is not None and not cycle.response_complete

    def _is_in_request(self) -> bool:
        """True if uvicorn has received only part of a request."""
        cycle = cast("RequestResponseCycle | None", self.cycle)
        return self._is_in_head or (cycle is not None and cycle.more_body)

    def _start_buffered_request(self) -> None:
        if self._buffered and self._exchange is None and not self.transport.is_closing():
            data = bytes(self._buffered)
            self._buffered.clear()
            self._start_request(data)

    def _start_request(self, data: bytes) -> None:
        """Handle the first bytes of a request; a cached head saves parsing it."""
        settings = self._parts.fast_path.pool.settings()
        last = self._last_head
        lengths = last.lengths(data) if last is not None and last.settings is settings else None
        if last is not None and lengths is not None:
            self._try_fast_path(last.head, data, lengths, closes=last.closes)
        elif hit := self._parts.head_cache.lookup(data, settings, self.server):
            cached, lengths = hit
            self._last_head = cached
            self._try_fast_path(cached.head, data, lengths, closes=cached.closes)
        else:
            self._parse_head(data, settings)

    def _parse_head(self, data: bytes, settings: Settings) -> None:
        """Handle the first bytes of a request whose head is not cached."""
        end = data.find(_BLANK_LINE) + len(_BLANK_LINE)
        if end < len(_BLANK_LINE):
            self._head_is_incomplete(data)
        elif end > MAX_HEAD or data.count(b"\n", 0, end) > MAX_HEADERS + 2:
            self._refuse(431, b"Request header fields too large")
        elif (found := parse(data[:end])) and self._is_allowed(found.head, settings):
            self._last_head = self._parts.head_cache.store(data[:end], found, settings, self.server)
            self._try_fast_path(found.head, data, (end, found.length), closes=found.closes)
        else:
            self._pass_to_uvicorn(data)

    def _head_is_incomplete(self, data: bytes) -> None:
        if b"\n\n" in data or not data[:1].isupper():
            self._pass_to_uvicorn(data)  # not canonical HTTP/1.1: uvicorn judges it
        elif len(data) > MAX_HEAD:
            self._refuse(431, b"Request header fields too large")
        else:
            self._buffer(data, 0, HEAD_S)

    def _buffer(self, data: bytes, needed: int, limit_s: float) -> None:
        if needed > self._reserved:
            if not self._parts.memory.reserve(needed - self._reserved):
                self._pass_to_uvicorn(data)  # it reads piece by piece, and the slow path refuses the request
                return
            self._reserved = needed
        if needed or not self._is_receiving:  # otherwise every byte of a slow head would extend its time
            self._set_deadline(limit_s)
        self._is_receiving = True
        self._unset_keepalive_if_required()
        self._buffered += data
        self._needed_bytes = needed

    def _is_allowed(self, head: RequestHead, settings: Settings) -> bool:
        """True if the request may pass the access check. Refusals are left to the middleware of the slow path."""
        scope = {
            "type": "http",
            "method": head.method,
            "scheme": self.scheme,
            "server": self.server,
            "headers": head.headers,
        }
        try:
            return judge(scope, settings) is None
        except ServiceError:
            return False

    def _try_fast_path(self, head: RequestHead, data: bytes, lengths: tuple[int, int], *, closes: bool) -> None:
        """Start a proxied exchange once the request is whole. `lengths` are the bytes of head and body."""
        end = lengths[0]
        whole = end + lengths[1]
        if len(data) < whole:
            self._buffer(data, whole, BODY_S)
            return
        self._unset_keepalive_if_required()
        self._clear_buffer_state()
        self._status = 0
        self._closes = self._closes or closes
        body = data[end:whole]
        exchange = None if is_too_deep(body) else self._parts.fast_path.begin(head, body, self)
        self._exchange = exchange
        if exchange is None:
            self._pass_to_uvicorn(data)
            return
        self._token = self._parts.meter.start()
        if len(data) > whole:
            self._buffered += data[whole:]
        if self._client_is_slow:
            exchange.set_paused(True)

    def _pass_to_uvicorn(self, data: bytes) -> None:
        """Give bytes to uvicorn."""
        if self._discards_input:
            return
        self._clear_buffer_state()
        self._free_memory()
        self._head_size += len(data)
        super().data_received(_without_upgrade_offer(data) if self._is_idle() else data)
        if self._head_size > MAX_HEAD and self._is_in_request():
            self._refuse(431, b"Request header fields too large")
        elif not self._deadline_s and self._is_idle():
            self._set_deadline(self.timeout_keep_alive)  # blank lines start no request, but end uvicorn's own timer

    def _clear_buffer_state(self) -> None:
        """Note that no part of a request is buffered."""
        self._needed_bytes = 0
        self._is_receiving = False

    def _free_memory(self) -> None:
        self._parts.memory.free(self._reserved)
        self._reserved = 0

    def _refuse(self, status: int, why: bytes) -> None:
        """Respond with an error and close; after the response in progress, if a later request is at fault."""
        if self._is_answering():
            if not self.cycle.more_body:
                self.cycle.keep_alive = False
                self._discards_input = True
                return
            if self.cycle.response_started or self.pipeline:  # the client would take the error for a part of it
                self.transport.close()
                return
        answer = b"HTTP/1.1 %b\r\ncontent-type: text/plain\r\ncontent-length: %d\r\n%bconnection: close\r\n\r\n%b"
        self.transport.write(answer % (_STATUS_LINES[status], len(why), self._parts.lines, why))
        self.transport.close()

    def send_400_response(self, msg: str) -> None:
        self._refuse(400, msg.encode())

    # --- ClientConnection of an exchange -------------------------------------------------------------

    @property
    def address(self) -> str:
        return self.client[0] if self.client else ""

    def start(self, status: int, lines: bytes, body: bytes, *, closes: bool = False) -> None:
        self._status = status
        self._closes = self._closes or closes
        defaults = self.server_state.default_headers
        if defaults is not self._default_headers:
            self._default_headers = defaults
            self._default_lines = b"".join(b"%b: %b\r\n" % header for header in defaults) + self._parts.lines
        close = b"connection: close\r\n" if self._closes else b""
        caching = b"" if b"cache-control:" in lines.lower() else self._parts.caching
        parts = (_STATUS_LINES.get(status, b"%d " % status), self._default_lines, lines, caching, close, body)
        self.transport.write(b"HTTP/1.1 %b\r\n%b%b%b%b\r\n%b" % parts)

    def end(self, *, whole: bool) -> None:
        status = self._status if self._exchange is None else self._exchange.entry.status
        self._exchange = None
        self._free_memory()
        self.server_state.total_requests += 1
        self._parts.meter.finish(self._token, status or 499, broken=not (whole or self._client_left))
        if self._closes or not whole:
            self.transport.close()
            return
        if self._buffered:
            self.transport.resume_reading()
            self.loop.call_soon(self._start_buffered_request)
        self._set_deadline(self.timeout_keep_alive)

    # --- time limits ------------------------------------------------------------------------------

    def _set_deadline(self, limit_s: float) -> None:
        """Limit the wait for more of a request. Each connection has one timer, which is moved only when it fires."""
        self._deadline_s = self.loop.time() + limit_s
        if self._timer is None or self._timer.when() > self._deadline_s:
            if self._timer is not None:
                self._timer.cancel()
            self._timer = self.loop.call_at(self._deadline_s, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        if self._deadline_s == 0.0 or self._exchange is not None or self.transport.is_closing():
            return
        if self.loop.time() < self._deadline_s:
            self._timer = self.loop.call_at(self._deadline_s, self._on_timer)
        elif self._needed_bytes:
            data = bytes(self._buffered)
            self._buffered.clear()
            self._pass_to_uvicorn(data)
        elif self._buffered or self._is_in_head:
            self._refuse(408, b"The head of the request did not arrive in time")
        else:
            self.transport.close()

    # --- limits inside uvicorn's parser ---------------------------------------------------------------
    # Only the parser sees trailers, and heads that arrive with or behind a request before them.

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._is_in_head = True
        self._head_size = 0
        self._set_deadline(HEAD_S)

    def on_header(self, name: bytes, value: bytes) -> None:
        if len(self.headers) >= MAX_HEADERS:
            raise ValueError("too many header fields")
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._is_in_head = False
        self._deadline_s = 0.0
        if len(self.url) + sum(len(name) + len(value) for name, value in self.headers) > MAX_HEAD:
            raise ValueError("too large a head")
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._head_size = 0
        super().on_body(body)

    def _should_upgrade(self) -> bool:
        return self.scope["method"] == "GET" and super()._should_upgrade()

    def on_message_complete(self) -> None:
        super().on_message_complete()
        cycle = cast("RequestResponseCycle | None", self.cycle)
        if cycle is not None and cycle.scope is self.scope and cycle.response_complete:
            self._set_deadline(self.timeout_keep_alive)

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.cycle.response_complete and self.cycle.more_body:
            self._set_deadline(UNREAD_BODY_S)  # else a byte now and then would keep the connection for ever

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Callable[..., Awaitable[None]]) -> None:
        wrapped = _without_chunks(cycle, app) if cycle.scope["http_version"] == "1.0" else app
        super()._start_asgi_task(cycle, cast("Any", wrapped))


_OFFER = re.compile(rb"\r\n(?:upgrade|http2-settings|connection):[^\r\n]*", re.IGNORECASE)
_WEBSOCKET = re.compile(rb"\r\nupgrade:[ \t]*websocket[ \t]*\r\n", re.IGNORECASE)
_CLOSE = re.compile(rb"\r\nconnection:[^\r\n]*\bclose\b", re.IGNORECASE)


def _without_upgrade_offer(data: bytes) -> bytes:
    """The request without an offer to change the protocol, such as h2c, which every Java client makes.

    Declining is always allowed (RFC 9110, 7.8); uvicorn would drop the request's body instead (its issue 2722).
    """
    end = data.find(_BLANK_LINE)
    if end < 0 or b"\r\nupgrade:" not in data[:end].lower():
        return data
    head = data[: end + 2]
    if _WEBSOCKET.search(head) and head.startswith(b"GET "):
        return data
    closing = b"connection: close\r\n" if _CLOSE.search(head) else b""
    return b"%b%b%b" % (_OFFER.sub(b"", head), closing, data[end + 2 :])


def _without_chunks(cycle: RequestResponseCycle, app: Callable[..., Awaitable[None]]) -> ASGIApp:
    """`app` for an HTTP/1.0 client, which does not know chunks: a body without a length ends with the connection.

    uvicorn would send chunks. For a HEAD request it writes no body and no framing, so the request is presented to it as
    a HEAD, and the body is written here.
    """
    is_head = cycle.scope["method"] == "HEAD"

    async def without_chunks(scope: Scope, receive: Receive, send: Send) -> None:
        cycle.scope = {**cycle.scope, "method": "HEAD"}

        async def send_plain(message: Message) -> None:
            if message["type"] == "http.response.body" and not is_head:
                if cycle.flow.write_paused and not cycle.disconnected:
                    await cycle.flow.drain()
                if not cycle.disconnected:
                    cycle.transport.write(message.get("body", b""))
            await send(message)

        await app(scope, receive, send_plain)

    return without_chunks
