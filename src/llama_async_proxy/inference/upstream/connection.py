"""One connection to a model's process, and the response that comes in on it.

httptools parses the framing: every byte is fed to it, and it says where the response ends. A response head that is in
the cache is not parsed again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol, cast

import httptools

from llama_async_proxy.errors import DeadlineExceeded, ServiceError, UpstreamFailed
from llama_async_proxy.inference.streaming import sse
from llama_async_proxy.inference.upstream.response_headers import (
    BLANK_LINE,
    Header,
    ResponseHead,
    ResponseHeadCache,
    for_client,
)
from llama_async_proxy.records.runtime import Endpoint
from llama_async_proxy.settings import Settings

KEEP_IDLE_S = 4.0
"""Seconds that an idle connection is kept. llama-server closes after 5.0 s (llama.cpp b11434, vendor/cpp-httplib); one
second less, so that its close rarely crosses our next request."""
_MAX_HEAD = 256 * 1024
_NOT_HTTP = (httptools.HttpParserError, httptools.HttpParserUpgrade)
_HEAD_OF_CHUNKS = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"


class ResponseListener(Protocol):
    """Receives the response to a request. `on_answer`, `on_complete`, `on_disconnect` and `on_failure` are the last
    call."""

    def on_ready(self, connection: UpstreamConnection) -> None:
        """The connection is open: the request can be sent."""

    def on_answer(self, head: ResponseHead, body: bytes, connection: UpstreamConnection) -> None:
        """A whole response with a cached head has come in, and the connection is free. `head.length` is that of the
        response the head was cached from; `body` has this one's."""

    def on_head(self, head: ResponseHead, body: bytes) -> None:
        """The head has come in; `body` are the raw bytes after it, chunk framing included."""

    def on_body(self, data: bytes) -> None:
        """More raw bytes of the body have come in, chunk framing included."""

    def on_chunk(self, chunk: bytes) -> None:
        """Part of the body without chunk framing, only when `chunks` were asked for. `on_head` or `on_body` brings the
        same bytes raw afterwards."""

    def on_complete(self, connection: UpstreamConnection) -> None:
        """The response has come in whole, and the connection is free."""

    def on_disconnect(self, connection: UpstreamConnection, error: ServiceError) -> None:
        """The engine closed the connection before the response was complete."""

    def on_failure(self, error: ServiceError) -> None:
        """The engine cannot be reached, or sent no usable response in time."""


class ConnectionOwner(Protocol):
    """Keeps the connections; `ConnectionPool` is the only one."""

    loop: asyncio.AbstractEventLoop
    head_cache: ResponseHeadCache

    def on_opened(self, connection: UpstreamConnection) -> None: ...
    def on_lost(self, connection: UpstreamConnection) -> None: ...


class UpstreamConnection(asyncio.Protocol):
    """One connection. Its owner watches `deadline_s`, a time on the loop's clock, and then calls `expire`."""

    __slots__ = (
        "_connecting",
        "_idle_s",
        "_is_paused",
        "_last_received_s",
        "_limit_s",
        "_listener",
        "_loop",
        "_owner",
        "_partial_head",
        "_reader",
        "_stays_open",
        "_transport",
        "_wants_chunks",
        "_wants_raw",
        "endpoint",
        "has_answered",
        "is_open",
        "reused",
    )

    def __init__(self, endpoint: Endpoint, owner: ConnectionOwner) -> None:
        self.endpoint = endpoint
        self.reused = False
        """The connection was open, and idle, before this request."""
        self.is_open = False
        self.has_answered = False
        """A byte of the response has come in."""
        self._owner = owner
        self._loop = owner.loop
        self._transport: asyncio.Transport
        self._connecting: asyncio.Task[None] | None = None
        self._listener: ResponseListener | None = None
        self._reader: _ResponseReader | None = None
        """Parser of the response; None before its first byte, and for a response whose head was cached."""
        self._wants_chunks = False
        self._wants_raw = True
        self._last_received_s = 0.0
        """Time of the last byte, on the loop's clock."""
        self._limit_s = KEEP_IDLE_S
        """Seconds that the next byte may take."""
        self._idle_s = 0.0
        self._is_paused = False
        self._stays_open = False
        self._partial_head = b""
        """Bytes of a head that is incomplete."""

    # --- for the user of the connection ------------------------------------------------------------

    def connect(self, limit_s: float) -> None:
        """Begin to connect, for at most `limit_s` seconds. Without a listener (see `when_ready`) the open connection
        is idle."""
        self._last_received_s, self._limit_s = self._loop.time(), limit_s
        self._owner.on_opened(self)
        self._connecting = self._loop.create_task(self._connect())

    async def _connect(self) -> None:
        try:
            await self._loop.create_connection(lambda: self, self.endpoint.host, self.endpoint.port)
        except OSError as error:
            self._connecting = None
            self._owner.on_lost(self)
            if self._listener is not None:
                self._listener.on_failure(UpstreamFailed(f"The model's process cannot be reached: {error}"))
        else:
            self._connecting = None

    def when_ready(self, listener: ResponseListener) -> None:
        """Call `listener.on_ready` as soon as the connection is open, which may be now, or `on_failure`."""
        self._listener = listener
        if self.is_open:
            listener.on_ready(self)

    def send(self, request: bytes, settings: Settings, *, chunks: bool, raw: bool = True) -> None:
        """Send a request of the listener that `on_ready` was called on. Bytes behind the response make it fail when the
        listener uses `raw` bytes; otherwise they only cost the connection."""
        self._reader = None
        self._wants_chunks, self._wants_raw = chunks, raw
        self._partial_head = b""
        self.has_answered = self._stays_open = False
        self._idle_s = settings.idle_timeout_s
        self._last_received_s = self._loop.time()
        self._limit_s = settings.first_token_timeout_s
        self._transport.write(request)

    def set_paused(self, paused: bool) -> None:
        if paused == self._is_paused or not self.is_open:
            return
        self._is_paused = paused
        if paused:
            self._transport.pause_reading()
        else:
            self._last_received_s = self._loop.time()
            self._transport.resume_reading()

    def abort(self) -> None:
        self._listener = None
        self._drop_reader()
        if self.is_open:
            self._transport.abort()
        elif self._connecting is not None:
            self._connecting.cancel()
            self._owner.on_lost(self)

    def close(self) -> None:
        """Close at once; a listener that waits for a response gets `on_failure`."""
        if self._listener is None:
            self.abort()
        else:
            self._listener.on_failure(self._disconnect_error())

    def idle(self) -> None:
        """Start the idle time: the connection waits for its next request."""
        self._last_received_s, self._limit_s = self._loop.time(), KEEP_IDLE_S

    @property
    def deadline_s(self) -> float:
        return self._last_received_s + self._limit_s

    @property
    def is_alive(self) -> bool:
        """The connection is open or being opened, and its deadline has not passed."""
        return (self.is_open or self._connecting is not None) and self._loop.time() < self.deadline_s

    @property
    def was_stale(self) -> bool:
        """True if the engine had closed the idle connection before this request: sending it once more is safe."""
        return self.reused and not self.has_answered

    @property
    def is_reusable(self) -> bool:
        return self.is_open and self._stays_open

    def expire(self) -> None:
        """Give up: the deadline has passed."""
        if self._listener is None:
            self.abort()
        elif not self.is_open:
            limit_s = self._limit_s
            self._listener.on_failure(
                DeadlineExceeded(f"The model's process accepted no connection within {limit_s:g} s.")
            )
        elif not self._is_paused:
            what = "is silent in the middle of its answer" if self._has_head else "does not begin to answer"
            # Not `on_disconnect`: a slow response is no reason to send the request again.
            self._listener.on_failure(
                DeadlineExceeded(f"The model's process {what}; the time limit for that has passed.")
            )

    # --- asyncio.Protocol -------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self.is_open = True
        if self._listener is not None:
            self._listener.on_ready(self)
        else:
            self.reused = self._stays_open = True
            self.idle()

    def data_received(self, data: bytes) -> None:
        listener = self._listener
        if listener is None:
            self._transport.abort()  # bytes without a request
            return
        self._last_received_s = self._loop.time()
        reader = self._reader
        if reader is None or reader.head is None:
            self._read_head(listener, data)
            return
        # Every token passes here: each call counts.
        try:
            reader.feed(data)
        except _NOT_HTTP as error:
            self._on_bad_http(reader, listener, error)
        if self._listener is listener:
            listener.on_body(data)
            if reader.is_complete:
                self._finish(listener, stays_open=reader.stays_open)

    def _read_head(self, listener: ResponseListener, data: bytes) -> None:
        """Handle bytes of a response whose head is not complete yet."""
        self._limit_s = self._idle_s
        self.has_answered = True
        unread, is_known = data, False
        if self._reader is None:
            found = None if self._wants_chunks else self._owner.head_cache.lookup(data)
            if found is not None:
                self._listener = None
                self._stays_open = self.reused = True
                if self._is_paused:
                    self.set_paused(False)
                listener.on_answer(*found, self)
                return
            self._reader = _ChunkReader(listener) if self._wants_chunks else _ResponseReader()
            if stream := self._owner.head_cache.lookup_stream(data):
                head, unread = stream
                self._reader.begin_with(head)
                is_known = True
        reader = self._reader
        try:
            reader.feed(unread)
        except _NOT_HTTP as error:
            self._on_bad_http(reader, listener, error)
        if self._listener is not listener:
            return
        data = self._partial_head + data
        if reader.head is not None:
            if not is_known:
                self._owner.head_cache.store_stream(data, reader.head)
            body = _after_head(data)
            self._partial_head = b""
            listener.on_head(reader.head, body)
            if reader.is_complete and self._listener is listener:
                if reader.stays_open and not self._wants_chunks:
                    self._owner.head_cache.store(data, reader.head)
                self._finish(listener, stays_open=reader.stays_open)
        elif len(data) > _MAX_HEAD:
            listener.on_failure(UpstreamFailed(f"The model's process sent a head of more than {_MAX_HEAD} bytes."))
        else:
            self._partial_head = data

    def _on_bad_http(self, reader: _ResponseReader, listener: ResponseListener, error: Exception) -> None:
        if self._wants_raw or not reader.is_complete:
            self._listener = None
            listener.on_failure(UpstreamFailed(f"The model's process sent something that is not HTTP/1.1: {error}"))
        else:
            reader.stays_open = False

    def _finish(self, listener: ResponseListener, *, stays_open: bool) -> None:
        if self._listener is not listener:
            return  # the listener has sent another request meanwhile
        self._listener = None
        self._drop_reader()
        self.set_paused(False)
        self._stays_open = stays_open
        self.reused = True
        listener.on_complete(self)

    def _drop_reader(self) -> None:
        if self._reader is not None:
            self._reader.close()
            self._reader = None

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_open = False
        self._owner.on_lost(self)
        listener = self._listener
        if listener is None:
            return
        head = self._reader.head if self._reader is not None else None
        if head is not None and exc is None and head.ends_with_connection:
            self._finish(listener, stays_open=False)
            return
        listener.on_disconnect(self, self._disconnect_error())
        self._drop_reader()

    @property
    def _has_head(self) -> bool:
        return self._reader is not None and self._reader.head is not None

    def _disconnect_error(self) -> UpstreamFailed:
        what = "broke off its answer" if self._has_head else "closed the connection without an answer"
        return UpstreamFailed(f"The model's process {what}.")


class _ResponseReader:
    """Parses one response. The callbacks are httptools' and run for heads and ends only, not for each chunk. Call
    `close` at the end: reader and parser refer to each other."""

    __slots__ = ("_headers", "_parser", "feed", "head", "is_complete", "stays_open")

    def __init__(self) -> None:
        self.head: ResponseHead | None = None
        self.is_complete = False
        self.stays_open = False
        """The connection can take another request after this response."""
        self._headers: list[Header] = []
        self._parser = httptools.HttpResponseParser(self)
        self.feed: Callable[[bytes], None] = self._parser.feed_data
        """Raises httptools' errors."""

    def begin_with(self, head: ResponseHead) -> None:
        """Continue after this head of a stream, which was cached and is not fed."""
        self.head = head
        self.feed(_HEAD_OF_CHUNKS)

    def close(self) -> None:
        """Release the parser; nothing can be fed afterwards."""
        del self.feed, self._parser

    # --- httptools --------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        if self.is_complete:
            raise ValueError("a second answer to one request")

    def on_header(self, name: bytes, value: bytes) -> None:
        if self.head is None:  # else a trailer
            self._headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        headers, self._headers = self._headers, []
        if status < 200 or self.head is not None:
            return  # an interim response, or a head that was cached
        named = dict(headers)
        length = named.get(b"content-length")
        self.head = ResponseHead(
            status,
            headers,
            b"".join(b"%b: %b\r\n" % header for header in for_client(headers) if header[0] != b"content-length"),
            int(length) if length is not None else None,
            is_chunked=b"transfer-encoding" in named,
            is_stream=status == 200 and sse.is_event_stream(headers),
        )

    def on_message_complete(self) -> None:
        if self.head is not None and not self.head.ends_with_connection:
            self.is_complete = True
            # httptools 0.9: the parser resets the flag when this callback returns.
            self.stays_open = self.head.length is not None and self._parser.should_keep_alive()


class _ChunkReader(_ResponseReader):
    """Passes the body's chunks to the listener as well, without framing."""

    __slots__ = ("on_body",)

    def __init__(self, listener: ResponseListener) -> None:
        self.on_body = listener.on_chunk
        super().__init__()


def _after_head(data: bytes) -> bytes:
    """The bytes after the head at the beginning of `data`, and after interim heads before it."""
    while data.startswith(b"HTTP/1.1 1"):
        data = data.partition(BLANK_LINE)[2]
    return data.partition(BLANK_LINE)[2]
