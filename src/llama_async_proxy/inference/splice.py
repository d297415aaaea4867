"""The short way of a request whose model is ready: two sockets joined, no task and no coroutine while bytes pass.

The engine's body reaches the client byte for byte, chunk framing included; only the heads are written anew. It takes
what `Proxy` would do when nothing has to be waited for; `Splicer.begin` says None to everything else.

Engine connections follow the rules of `upstream`: only those of answers with a length are kept, for less than
llama-server keeps them, and a kept one that died before its first byte is replaced once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from typing import Any, Protocol, TypeVar, cast

import httptools

from llama_async_proxy.errors import DeadlineExceeded, ServiceError, UpstreamFailed
from llama_async_proxy.inference import reassembly, sse
from llama_async_proxy.inference.account import Account, request_id
from llama_async_proxy.inference.delivery import (
    REQUEST_ID,
    Header,
    can_be_reassembled,
    error_headers,
    for_answer,
    for_client,
)
from llama_async_proxy.inference.dialects import error_body, error_event
from llama_async_proxy.inference.lease import Lease
from llama_async_proxy.inference.live import LiveRequests
from llama_async_proxy.inference.names import Names, choose
from llama_async_proxy.inference.proxy import CLIENT_GONE, ClientGone, Request, for_engine
from llama_async_proxy.inference.reassembly import NotReassembled, Reassembly
from llama_async_proxy.inference.residency import Residency
from llama_async_proxy.inference.routes import parameters
from llama_async_proxy.inference.upstream import KEEP_IDLE_S, MAX_HEAD, MAX_IDLE
from llama_async_proxy.records import Endpoint, Model, RequestRecord
from llama_async_proxy.settings import Settings

_CHECK_S = 0.4
"""Longest between two looks for deadlines: one timer serves all connections, so that a request costs none. With it an
idle connection is still closed before llama-server's 5 s."""

T = TypeVar("T")


class Client(Protocol):
    """The client's connection, while a passage answers on it."""

    def start(self, status: int, headers: Sequence[Header], body: bytes) -> None:
        """Write the head and what there is of the body."""

    def write(self, data: bytes) -> None:
        """Write more of the body, framed already."""

    def ended(self, *, whole: bool) -> None:
        """The answer ended; when it is not `whole`, only closing the connection can tell the client."""


class Splicer:
    """Begins passages and owns the engine connections they use. Belongs to one event loop."""

    def __init__(
        self,
        *,
        names: Names,
        residency: Residency,
        settings: Callable[[], Settings],
        live: LiveRequests,
        finished: Callable[[RequestRecord], None],
    ) -> None:
        self.settings = settings
        self.live = live
        self.finished = finished
        self._names = names
        self._residency = residency
        self._loop = asyncio.get_running_loop()
        self._channels: set[Channel] = set()
        self._idle: dict[Endpoint, list[Channel]] = {}
        self._timer: asyncio.TimerHandle | None = None

    def begin(self, request: Request, client: Client) -> Passage | None:
        """Send `request` to its model. None when it needs another treatment; nothing has happened then."""
        try:
            asked = parameters(request.route, request.query, request.headers, request.body)
            model = choose(self._names.index, asked.model, () if asked.model else self._residency.loaded())
        except Exception:  # the long way meets it again, and answers and logs it
            return None
        if not self._residency.is_ready(model) or self._names.index.variant(asked.model):
            return None
        # Of other servers it is not known how their streams and their whole answers differ.
        reassembles = asked.reassembles and not model.has_command
        parts = reassembly.begin(request.route.path) if reassembles else None
        passage = Passage(self, request, client, parts)
        return passage if passage.leased(model, self._residency) else None

    def close(self) -> None:
        """Close every engine connection at once."""
        for channel in tuple(self._channels):
            channel.abort()

    # --- for passages and channels ----------------------------------------------------------------

    def take(self, endpoint: Endpoint) -> Channel | None:
        """A kept connection that seems to live."""
        idle = self._idle.get(endpoint)
        while idle:
            channel = idle.pop()
            if channel.is_open and self._loop.time() < channel.deadline_s:
                return channel
            channel.abort()
        return None

    def keep(self, channel: Channel) -> None:
        """Take back a connection whose answer has ended."""
        idle = self._idle.setdefault(channel.endpoint, [])
        if channel.is_reusable and len(idle) < MAX_IDLE:
            channel.deadline_s = self._loop.time() + KEEP_IDLE_S
            idle.append(channel)
        else:
            channel.abort()

    def opened(self, channel: Channel) -> None:
        self._channels.add(channel)
        if self._timer is None:
            self._check_later()

    def lost(self, channel: Channel) -> None:
        self._channels.discard(channel)
        idle = self._idle.get(channel.endpoint)
        if idle and channel in idle:
            idle.remove(channel)
        if not idle:
            self._idle.pop(channel.endpoint, None)

    def _check_later(self) -> None:
        settings = self.settings()
        pause_s = min(_CHECK_S, settings.first_token_timeout_s / 4, settings.idle_timeout_s / 4)
        self._timer = self._loop.call_later(pause_s, self._check)

    def _check(self) -> None:
        now_s = self._loop.time()
        for channel in tuple(self._channels):
            if now_s >= channel.deadline_s:
                channel.expire()
        self._timer = None
        if self._channels:
            self._check_later()


class Passage:
    """One request on its way, from its lease to its record."""

    def __init__(self, splicer: Splicer, request: Request, client: Client, parts: Reassembly | None) -> None:
        self.account = Account(request.client, request.route.path, request_id(request.headers))
        self._splicer = splicer
        self._request = request
        self._client = client
        self._parts = parts
        """What the answer is put together from, when it is."""
        self._pieces: list[bytes] = []
        """Of the body, not yet among the parts."""
        self._loop = asyncio.get_running_loop()
        self._lease: Lease
        self._claim: AbstractAsyncContextManager[Lease]
        self._channel: Channel | None = None
        self._connecting: asyncio.Task[None] | None = None
        self._is_paused = False
        self._has_started = False
        self._has_ended = False

    # --- beginning --------------------------------------------------------------------------------

    def leased(self, model: Model, residency: Residency) -> bool:
        """Claim `model` and go. False when it would have to be waited for."""
        self._claim = residency.lease(model, self.fail)
        try:
            self._lease = _at_once(self._claim.__aenter__())
        except (_WouldWait, ServiceError):
            return False
        self.account.resolved(model)
        self.account.leased(self._lease)
        self._splicer.live.add(self.account, self.fail)
        self._ask()
        return True

    def _ask(self) -> None:
        channel = self._splicer.take(self._lease.endpoint)
        if channel is None:
            self._connect()
        else:
            self._send(channel)

    def _connect(self) -> None:
        self._connecting = self._loop.create_task(self._connected())

    async def _connected(self) -> None:
        endpoint, limit_s = self._lease.endpoint, self._splicer.settings().connect_timeout_s
        try:
            async with asyncio.timeout(limit_s):
                _, channel = await self._loop.create_connection(
                    lambda: Channel(endpoint, self._splicer), endpoint.host, endpoint.port
                )
        except TimeoutError:
            self.fail(DeadlineExceeded(f"The model's process accepted no connection within {limit_s:g} s."))
        except OSError as error:
            self.fail(UpstreamFailed(f"The model's process cannot be reached: {error}"))
        else:
            self._send(channel)
        finally:
            self._connecting = None

    def _send(self, channel: Channel) -> None:
        self._channel = channel
        if not channel.is_open:
            self.fail(UpstreamFailed("The model's process closed the connection without an answer."))
            return
        request = for_engine(self._request)
        if self._parts is not None:
            request = replace(request, body=self._parts.as_stream(request.body))
        request = request.to(self._lease.endpoint)
        channel.begin(self, request.head(self._lease.endpoint), request.body, self._splicer.settings())
        channel.set_paused(self._is_paused)

    # --- what the client's connection says --------------------------------------------------------

    def set_paused(self, paused: bool) -> None:
        """Whether the client reads more slowly than the engine writes."""
        self._is_paused = paused
        if self._channel is not None:
            self._channel.set_paused(paused)

    def client_gone(self) -> None:
        """Its connection is lost; nothing can be written any more."""
        if not self._has_ended:
            gone = ClientGone()
            self.account.status, self.account.error = CLIENT_GONE, str(gone)
            self._end(whole=False)

    # --- what the engine's connection says --------------------------------------------------------

    def head(self, channel: Channel, body: bytes) -> None:
        """The answer's head has come in, and the raw bytes after it."""
        if self._parts is not None:
            if can_be_reassembled(channel.status, channel.headers):
                self._feed(self._parts)
                return
            self._parts = None
            self.account.received(b"".join(self._pieces))
        headers = for_client(channel.headers)
        self.account.streamed = sse.is_event_stream(headers)
        self._has_started = True
        if channel.is_chunked:
            headers.append((b"transfer-encoding", b"chunked"))
        elif channel.ends_with_connection:
            headers.append((b"connection", b"close"))
        self._start(channel.status, headers, body)

    def _start(self, status: int, headers: Sequence[Header], body: bytes) -> None:
        self.account.status = status
        self._client.start(status, [*headers, (REQUEST_ID, self.account.id.encode())], body)

    def received(self, piece: bytes) -> None:
        """A piece of the body, without its framing; `head` or `body` follows."""
        if self._parts is None:
            self.account.received(piece)
        else:
            self._pieces.append(piece)

    def body(self, data: bytes) -> None:
        """More raw bytes after the head."""
        if self._parts is None:
            self._client.write(data)
        else:
            self._feed(self._parts)

    def complete(self, channel: Channel) -> None:
        self._channel = None
        self._splicer.keep(channel)
        if self._parts is None:
            self._end(whole=True)
        else:
            self._reassemble(self._parts, channel)

    def died(self, channel: Channel, error: ServiceError) -> None:
        """The engine's connection is of no more use."""
        if channel.was_kept and not channel.has_answered and not self._has_ended:
            self._channel = None
            self._connect()
        else:
            self.fail(error)

    # --- an answer from a stream ------------------------------------------------------------------

    def _feed(self, parts: Reassembly) -> None:
        try:
            for piece in self._pieces:
                parts.feed(piece)
                if parts.is_generating:
                    self.account.received(piece)
        except NotReassembled:
            self._ask_plainly()
        self._pieces.clear()

    def _reassemble(self, parts: Reassembly, channel: Channel) -> None:
        try:
            answer = parts.answer()
        except NotReassembled:
            self._ask_plainly()
        except UpstreamFailed as error:
            self.fail(error)
        else:
            self._start(answer.status, for_answer(channel.headers, answer), answer.body)
            self._end(whole=True)

    def _ask_plainly(self) -> None:
        """Nothing has left yet: ask again, as the client did."""
        self._parts = None
        if self._channel is not None:
            self._channel.abort()
            self._channel = None
        self._ask()

    # --- ending -----------------------------------------------------------------------------------

    def fail(self, error: ServiceError) -> None:
        """Break off, and tell the client in whatever form still fits."""
        if self._has_ended:
            return
        self.account.error = error.message
        dialect, channel = self._request.route.dialect, self._channel
        whole = True
        if not self._has_started:
            body = error_body(dialect, error)
            self._start(error.status, error_headers(error, body), body)
        elif self.account.streamed and channel is not None and channel.is_between_chunks:
            event = sse.closing(channel.last_piece) + error_event(dialect, error)
            self._client.write(b"%x\r\n%b\r\n0\r\n\r\n" % (len(event), event))
        else:
            whole = False
        self._end(whole=whole)

    def _end(self, *, whole: bool) -> None:
        self._has_ended = True
        if self._connecting is not None and self._connecting is not asyncio.current_task():
            self._connecting.cancel()
        if self._channel is not None:
            self._channel.abort()
            self._channel = None
        _at_once(self._claim.__aexit__(None, None, None))
        self._loop.call_soon(self._record)
        self._client.ended(whole=whole)

    def _record(self) -> None:
        self._splicer.live.discard(self.account)
        self._splicer.finished(self.account.record())


class Channel(asyncio.Protocol):
    """A connection to a model's process, and the answer that comes in on it."""

    def __init__(self, endpoint: Endpoint, splicer: Splicer) -> None:
        self.endpoint = endpoint
        self.deadline_s = float("inf")
        self.was_kept = False
        self.is_open = False
        self._splicer = splicer
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport
        self._passage: Passage | None = None
        self._idle_s = 0.0
        self._is_paused = False
        self._forget_answer()

    def _forget_answer(self) -> None:
        self.status = 0
        self.headers: list[Header] = []
        self.has_answered = False
        """A byte of the answer has come in."""
        self.is_chunked = False
        self.last_piece = b""
        self._has_length = self._has_head = self._is_complete = self._has_bodiless_status = False
        self._is_in_chunk = self._stays_open = False
        self._received = b""
        """Up to the end of the head everything; later the last piece."""

    # --- for the passage --------------------------------------------------------------------------

    def begin(self, passage: Passage, head: bytes, body: bytes, settings: Settings) -> None:
        self._passage = passage
        self._forget_answer()
        self._parser = httptools.HttpResponseParser(self)
        self._idle_s = settings.idle_timeout_s
        self.deadline_s = self._loop.time() + settings.first_token_timeout_s
        self._transport.write(head + body)

    def set_paused(self, paused: bool) -> None:
        if paused == self._is_paused or not self.is_open:
            return
        self._is_paused = paused
        if paused:
            self._transport.pause_reading()
        else:
            self.deadline_s = self._loop.time() + self._idle_s
            self._transport.resume_reading()

    def abort(self) -> None:
        self._passage = None
        self._transport.abort()

    @property
    def is_reusable(self) -> bool:
        return self.is_open and self._stays_open and self._has_length

    @property
    def ends_with_connection(self) -> bool:
        """Only its end shows where the answer ends."""
        return not (self._has_length or self.is_chunked or self._has_bodiless_status)

    @property
    def is_between_chunks(self) -> bool:
        """Another chunk could follow what the client has been sent."""
        return self.is_chunked and not self._is_in_chunk and self._received.endswith(b"\r\n")

    def expire(self) -> None:
        """The deadline has passed."""
        if self._passage is None:
            self._transport.close()
        elif not self._is_paused:
            what = "is silent in the middle of its answer" if self._has_head else "does not begin to answer"
            # Not `died`: a slow answer is no reason to ask again.
            self._passage.fail(DeadlineExceeded(f"The model's process {what}; the time limit for that has passed."))

    # --- asyncio.Protocol -------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self.is_open = True
        self.deadline_s = self._loop.time() + KEEP_IDLE_S  # if whoever wanted it has left meanwhile
        self._splicer.opened(self)

    def data_received(self, data: bytes) -> None:
        passage = self._passage
        if passage is None:
            self._transport.abort()  # nobody asked for this
            return
        self.has_answered = True
        self.deadline_s = self._loop.time() + self._idle_s
        had_head = self._has_head
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            passage.fail(UpstreamFailed(f"The model's process sent something that is not HTTP/1.1: {error}"))
            return
        if had_head:
            self._received = data
            passage.body(data)
        else:
            self._head_received(passage, self._received + data)
        if self._is_complete and self._passage is passage:
            self._finish(passage)

    def _head_received(self, passage: Passage, data: bytes) -> None:
        if self._has_head:
            self._received = _after_head(data) or b"\r\n"
            passage.head(self, _after_head(data))
        elif len(data) > MAX_HEAD:
            passage.fail(UpstreamFailed(f"The model's process sent a head of more than {MAX_HEAD} bytes."))
        else:
            self._received = data

    def _finish(self, passage: Passage) -> None:
        self._passage = None
        self.set_paused(False)
        self.was_kept = True
        passage.complete(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_open = False
        self._splicer.lost(self)
        passage = self._passage
        if passage is None:
            return
        if self._has_head and exc is None and self.ends_with_connection:
            self._finish(passage)
            return
        what = "broke off its answer" if self._has_head else "closed the connection without an answer"
        passage.died(self, UpstreamFailed(f"The model's process {what}."))

    # --- httptools --------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        if self._is_complete:
            raise ValueError("a second answer to one request")

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._has_head:
            return  # a trailer
        name = name.lower()
        if name == b"content-length":
            self._has_length = True
        elif name == b"transfer-encoding":
            self.is_chunked = True
        self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        self.status = self._parser.get_status_code()
        if self.status < 200:
            self.headers = []  # an interim answer; the real one follows
            return
        self._has_head = True
        self._has_bodiless_status = self.status in (204, 304)

    def on_chunk_header(self) -> None:
        self._is_in_chunk = True

    def on_chunk_complete(self) -> None:
        self._is_in_chunk = False

    def on_body(self, body: bytes) -> None:
        self.last_piece = body
        if self._passage is not None:
            self._passage.received(body)

    def on_message_complete(self) -> None:
        if self._has_head and not self.ends_with_connection:
            self._is_complete = True
            # To be asked here and now: the parser forgets it when it returns.
            self._stays_open = self._parser.should_keep_alive()


class _WouldWait(Exception):
    """A coroutine that was to end at once did not."""


def _at_once(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine that has nothing to wait for. Raises _WouldWait, having ended it, when it has."""
    try:
        coroutine.send(None)
    except StopIteration as done:
        return cast("T", done.value)
    coroutine.close()
    raise _WouldWait


def _after_head(data: bytes) -> bytes:
    """What follows the heads, interim ones included, at the beginning of `data`."""
    while data.startswith(b"HTTP/1.1 1"):
        data = data.partition(b"\r\n\r\n")[2]
    return data.partition(b"\r\n\r\n")[2]
