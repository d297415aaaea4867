"""A connection to a model's process, and the answer that comes in on it.

httptools reads the framing and nobody else: it is fed what passes, and asked where the answer ends. It need not read a
head that is known.
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
"""llama-server closes after 5.0 s; a second less, so that its close rarely meets our next request."""
_MAX_HEAD = 256 * 1024
_NOT_HTTP = (httptools.HttpParserError, httptools.HttpParserUpgrade)
_HEAD_OF_CHUNKS = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
_LAST_CHUNK = b"0\r\n\r\n"
_END_BYTES = 8
"""Enough to see between what an answer ended."""


class ResponseListener(Protocol):
    """Who has asked on a channel. After `answer`, `complete` or `on_disconnect` it hears no more of it."""

    def on_ready(self, connection: UpstreamConnection) -> None:
        """It can be asked now."""

    def on_answer(self, head: ResponseHead, body: bytes, connection: UpstreamConnection) -> None:
        """All of a plain answer has come in, and the channel is free. `head` has the length of another."""

    def on_head(self, head: ResponseHead, body: bytes) -> None:
        """The head has come in, and the raw bytes after it."""

    def on_body(self, data: bytes) -> None:
        """More raw bytes."""

    def on_chunk(self, chunk: bytes) -> None:
        """Part of the body without its framing, for who asked for `chunks`; `head` or `body` follows."""

    def on_complete(self, connection: UpstreamConnection) -> None:
        """The answer has come in whole, and the channel is free."""

    def on_disconnect(self, connection: UpstreamConnection, error: ServiceError) -> None:
        """The connection is of no more use."""

    def on_failure(self, error: ServiceError) -> None:
        """The answer is none, or too late."""


class ConnectionOwner(Protocol):
    """Who keeps the channels."""

    loop: asyncio.AbstractEventLoop
    head_cache: ResponseHeadCache

    def on_opened(self, connection: UpstreamConnection) -> None: ...
    def on_lost(self, connection: UpstreamConnection) -> None: ...


class UpstreamConnection(asyncio.Protocol):
    """One connection. `deadline_s`, on the loop's clock, is for the owner to watch, who calls `expire`."""

    __slots__ = (
        "_connecting",
        "_idle_s",
        "_is_paused",
        "_last",
        "_last_received_s",
        "_limit_s",
        "_listener",
        "_loop",
        "_owner",
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
        self.is_open = False
        self.has_answered = False
        """A byte of the answer has come in."""
        self._owner = owner
        self._loop = owner.loop
        self._transport: asyncio.Transport
        self._connecting: asyncio.Task[None] | None = None
        self._listener: ResponseListener | None = None
        self._reader: _ResponseReader | None = None
        """Reads the answer; None before its first byte, and for one whose head was known."""
        self._wants_chunks = False
        self._wants_raw = True
        self._last_received_s = 0.0
        """When the last byte came in."""
        self._limit_s = KEEP_IDLE_S
        """How long the next may take."""
        self._idle_s = 0.0
        self._is_paused = False
        self._stays_open = False
        self._last = b""
        """The end of what came in; all of the head while it is not whole."""

    # --- for who asks -----------------------------------------------------------------------------

    def connect(self, limit_s: float) -> None:
        """Begin to; who does not `when_ready` for it leaves it to wait as a kept one."""
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
        """Tell `listener` when it can be asked, which may be now, or that it cannot."""
        self._listener = listener
        if self.is_open:
            listener.on_ready(self)

    def send(self, request: bytes, settings: Settings, *, chunks: bool, raw: bool = True) -> None:
        """Send a request. An answer that more bytes follow fails for who passes on the `raw` ones; to who does not, it
        only costs the connection."""
        self._reader = None
        self._wants_chunks, self._wants_raw = chunks, raw
        self._last = b""
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
        """Close at once, and tell who waits for an answer."""
        if self._listener is None:
            self.abort()
        else:
            self._listener.on_failure(self._disconnect_error())

    def idle(self) -> None:
        """It waits for the next request."""
        self._last_received_s, self._limit_s = self._loop.time(), KEEP_IDLE_S

    @property
    def deadline_s(self) -> float:
        return self._last_received_s + self._limit_s

    @property
    def is_alive(self) -> bool:
        """It is open or about to be, as far as one can tell."""
        return (self.is_open or self._connecting is not None) and self._loop.time() < self.deadline_s

    @property
    def is_reusable(self) -> bool:
        return self.is_open and self._stays_open

    def closing(self, event: bytes) -> bytes | None:
        """`event` as the rest of the body, when another chunk can follow what came in; the channel is spent then."""
        reader = self._reader
        if reader is None or not self._last.endswith(b"\r\n") or not reader.can_end_here():
            return None
        return last_chunks(sse.closing(self._last.removesuffix(b"\r\n")) + event)

    def expire(self) -> None:
        """The deadline has passed."""
        if self._listener is None:
            self.abort()
        elif not self.is_open:
            limit_s = self._limit_s
            self._listener.on_failure(
                DeadlineExceeded(f"The model's process accepted no connection within {limit_s:g} s.")
            )
        elif not self._is_paused:
            what = "is silent in the middle of its answer" if self._has_head else "does not begin to answer"
            # Not `on_disconnect`: a slow answer is no reason to ask again.
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
            self._transport.abort()  # nobody asked for this
            return
        self._last_received_s = self._loop.time()
        reader = self._reader
        if reader is None or reader.head is None:
            self._read_head(listener, data)
            return
        # A token comes this way: every call counts.
        try:
            reader.feed(data)
        except _NOT_HTTP as error:
            self._on_bad_http(reader, listener, error)
        if self._listener is listener:
            self._last = data[-_END_BYTES:]
            listener.on_body(data)
            if reader.is_complete:
                self._finish(listener, stays_open=reader.stays_open)

    def _read_head(self, listener: ResponseListener, data: bytes) -> None:
        """Bytes of an answer whose head is not whole yet."""
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
        data = self._last + data
        if reader.head is not None:
            if not is_known:
                self._owner.head_cache.store_stream(data, reader.head)
            body = _after_head(data)
            self._last = body[-_END_BYTES:] or b"\r\n"
            listener.on_head(reader.head, body)
            if reader.is_complete and self._listener is listener:
                if reader.stays_open and not self._wants_chunks:
                    self._owner.head_cache.store(data, reader.head)
                self._finish(listener, stays_open=reader.stays_open)
        elif len(data) > _MAX_HEAD:
            listener.on_failure(UpstreamFailed(f"The model's process sent a head of more than {_MAX_HEAD} bytes."))
        else:
            self._last = data

    def _on_bad_http(self, reader: _ResponseReader, listener: ResponseListener, error: Exception) -> None:
        if self._wants_raw or not reader.is_complete:
            self._listener = None
            listener.on_failure(UpstreamFailed(f"The model's process sent something that is not HTTP/1.1: {error}"))
        else:
            reader.stays_open = False

    def _finish(self, listener: ResponseListener, *, stays_open: bool) -> None:
        if self._listener is not listener:
            return  # it was asked again meanwhile
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
    """Reads one answer; its callbacks are httptools' and run for heads and ends only, not for each chunk. To be closed,
    as reader and parser hold each other."""

    __slots__ = ("_headers", "_parser", "feed", "head", "is_complete", "stays_open")

    def __init__(self) -> None:
        self.head: ResponseHead | None = None
        self.is_complete = False
        self.stays_open = False
        """The connection can take another request."""
        self._headers: list[Header] = []
        self._parser = httptools.HttpResponseParser(self)
        self.feed: Callable[[bytes], None] = self._parser.feed_data
        """Raises httptools' errors."""

    def begin_with(self, head: ResponseHead) -> None:
        """Read on after this head, of a stream, which need not be fed."""
        self.head = head
        self.feed(_HEAD_OF_CHUNKS)

    def close(self) -> None:
        """It is fed no more."""
        del self.feed, self._parser

    def can_end_here(self) -> bool:
        """Whether a last chunk would end the body here; nothing can be fed afterwards."""
        if self.head is None or not self.head.is_chunked or self.is_complete:
            return False
        try:
            self._parser.feed_data(_LAST_CHUNK)
        except httptools.HttpParserError:
            return False
        return self.is_complete

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
            return  # an interim answer, and the real one follows; or known already
        named = dict(headers)
        length = named.get(b"content-length")
        self.head = ResponseHead(
            status,
            headers,
            b"".join(b"%b: %b\r\n" % header for header in for_client(headers) if header[0] != b"content-length"),
            int(length) if length is not None else None,
            is_chunked=b"transfer-encoding" in named,
            is_stream=sse.is_event_stream(headers),
        )

    def on_message_complete(self) -> None:
        if self.head is not None and not self.head.ends_with_connection:
            self.is_complete = True
            # To be asked here and now: the parser forgets it when it returns.
            self.stays_open = self.head.length is not None and self._parser.should_keep_alive()


class _ChunkReader(_ResponseReader):
    """Tells the body's pieces, too."""

    __slots__ = ("on_body",)

    def __init__(self, listener: ResponseListener) -> None:
        self.on_body = listener.on_chunk
        super().__init__()


def last_chunks(data: bytes) -> bytes:
    """`data` as the rest of a chunked body."""
    return b"%x\r\n%b\r\n%b" % (len(data), data, _LAST_CHUNK)


def _after_head(data: bytes) -> bytes:
    """What follows the heads, interim ones included, at the beginning of `data`."""
    while data.startswith(b"HTTP/1.1 1"):
        data = data.partition(BLANK_LINE)[2]
    return data.partition(BLANK_LINE)[2]
