"""The short way of a request whose model is ready: two sockets joined, no task and no coroutine while bytes pass.

The engine's body reaches the client byte for byte, chunk framing included; only the heads are written anew. It does
what `Proxy` would do when nothing has to be waited for; `FastPath.begin` says None to everything else.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from llama_async_proxy.errors import ServiceError, UpstreamFailed
from llama_async_proxy.inference.in_flight import InFlightRequests
from llama_async_proxy.inference.proxy import CLIENT_GONE, ClientGone, Request, for_engine, kept_headers
from llama_async_proxy.inference.request_log import RequestLogEntry, key_id, request_id
from llama_async_proxy.inference.requests.error_formats import error_body, error_event
from llama_async_proxy.inference.requests.names import Names, choose
from llama_async_proxy.inference.requests.routes import Route, check_kind, parameters
from llama_async_proxy.inference.response_writer import can_be_reassembled, error_headers, for_answer
from llama_async_proxy.inference.scheduling.leases import Lease
from llama_async_proxy.inference.scheduling.scheduler import ModelScheduler
from llama_async_proxy.inference.streaming import aggregator
from llama_async_proxy.inference.streaming.aggregator import CannotAggregate, StreamAggregator
from llama_async_proxy.inference.streaming.prompt_progress import PromptProgressFilter, asking
from llama_async_proxy.inference.upstream.client import authority, authorization
from llama_async_proxy.inference.upstream.connection import UpstreamConnection, last_chunks
from llama_async_proxy.inference.upstream.connection_pool import ConnectionPool
from llama_async_proxy.inference.upstream.response_headers import Head, Header
from llama_async_proxy.records.runtime import Endpoint

_EVENT_END = b"\n\n\r\n"
"""The end of an event and of the chunk that holds it."""
_BODY_END = (_EVENT_END, b"\r\n0\r\n\r\n")


class Client(Protocol):
    """The client's connection, while a passage answers on it."""

    @property
    def address(self) -> str:
        """Of the peer, for the record."""

    @property
    def write(self) -> Callable[[bytes], None]:
        """Writes more of the body, framed already."""

    def start(self, status: int, lines: bytes, body: bytes, *, closes: bool = False) -> None:
        """Write the head and what there is of the body. `lines` are header fields, each with its line end. With
        `closes` only the connection's end shows where the answer ends."""

    def ended(self, *, whole: bool) -> None:
        """The answer ended; when it is not `whole`, only closing the connection can tell the client."""


class RequestHead:
    """What the requests of a connection have in common as long as only their bodies differ."""

    __slots__ = ("_begins", "_endpoint", "_lines", "headers", "key", "method", "own_id", "query", "route")

    def __init__(self, route: Route, method: str, query: bytes, headers: Sequence[Header]) -> None:
        self.route = route
        self.method = method
        self.query = query
        self.headers = headers
        self.own_id = request_id(headers)
        self.key = key_id(headers)
        self._lines = _lines(kept_headers(headers))
        self._endpoint: Endpoint | None = None
        self._begins = b""
        """What a request to that endpoint begins with."""

    def written(self, endpoint: Endpoint, body: bytes) -> bytes:
        """The request as the engine gets it."""
        if endpoint.model is not None:
            return self._routed(endpoint, body)
        if endpoint is not self._endpoint:
            query = b"?" + self.query if self.query else b""
            target = b"%b %b%b" % (self.method.encode(), self.route.path.encode(), query)
            lines = _lines([(b"host", authority(endpoint)), *authorization(endpoint)]) + self._lines
            self._begins = b"%b HTTP/1.1\r\n%b" % (target, lines)
            self._endpoint = endpoint
        if body or self.method == "POST":
            return b"%bcontent-length: %d\r\n\r\n%b" % (self._begins, len(body), body)
        return self._begins + b"\r\n"

    def _routed(self, endpoint: Endpoint, body: bytes) -> bytes:
        plain = for_engine(Request(self.route, self.method, self.query, self.headers, body, ""))
        request = plain.to(endpoint)
        return request.head(endpoint) + request.body


class FastPath:
    """Begins passages."""

    def __init__(
        self,
        *,
        pool: ConnectionPool,
        names: Names,
        scheduler: ModelScheduler,
        live: InFlightRequests,
    ) -> None:
        self.pool = pool
        self.live = live
        self._names = names
        self.scheduler = scheduler

    def begin(self, head: RequestHead, body: bytes, client: Client) -> ProxiedExchange | None:
        """Send a request to its model. None when it needs another treatment; nothing has happened then."""
        try:
            asked = parameters(head.route, head.query, head.headers, body)
            index = self._names.index
            if asked.model is None:
                return None
            model = choose(index, asked.model)
            check_kind(head.route, model)
        except Exception:  # the long way meets it again, and answers and logs it
            return None
        if index.variant(asked.model):
            return None
        passage = ProxiedExchange(self, head, body, client)
        lease = self.scheduler.try_lease(model, passage.fail)
        if lease is None:
            return None
        # Of other servers it is not known how their streams and their whole answers differ.
        reassembles = asked.reassembles and not model.has_command
        if asked.hides_progress and not model.has_command:
            passage.hide_progress()
        passage.begin(lease, aggregator.begin(head.route.path) if reassembles else None)
        return passage


class ProxiedExchange:
    """One request on its way, from its lease to its record."""

    __slots__ = (
        "_channel",
        "_client",
        "_has_ended",
        "_has_started",
        "_head",
        "_held",
        "_hidden",
        "_is_between_events",
        "_is_paused",
        "_lease",
        "_parts",
        "_pieces",
        "_request",
        "_request_body",
        "_splicer",
        "_write",
        "account",
    )

    def __init__(self, fast_path: FastPath, request: RequestHead, body: bytes, client: Client) -> None:
        self.account = RequestLogEntry(client.address, request.route.path, request.own_id, request.key)
        self._splicer = fast_path
        self._request = request
        self._request_body = body
        self._client = client
        self._write = client.write
        self._parts: StreamAggregator | None = None
        """What the answer is put together from, when it is."""
        self._pieces: list[bytes] = []
        """Of the body, not yet among the parts."""
        self._hidden: PromptProgressFilter | None = None
        """What the client is not shown of a stream."""
        self._held = b""
        """Of a stream, the beginning of an event that had not come whole."""
        self._is_between_events = True
        """The client is, with what it has been sent of a stream."""
        self._lease: Lease
        self._head: Head | None = None
        self._channel: UpstreamConnection | None = None
        self._is_paused = False
        self._has_started = False
        self._has_ended = False

    # --- beginning --------------------------------------------------------------------------------

    def hide_progress(self) -> None:
        """Have the engine tell its progress, but not the client."""
        self._hidden = PromptProgressFilter()
        self._request_body = asking(self._request_body)

    def begin(self, lease: Lease, parts: StreamAggregator | None) -> None:
        self._lease = lease
        self._parts = parts
        self.account.resolved(lease.model)
        self.account.leased(lease)
        self._ask()
        if not self._has_ended:  # after the request has left: nobody looks for it before
            self._splicer.live.add(self.account, self.fail)

    def _ask(self) -> None:
        self._reach(self._splicer.pool.take(self._lease.endpoint))

    def _reach(self, channel: UpstreamConnection) -> None:
        self._channel = channel
        channel.reach(self)

    def connected(self, channel: UpstreamConnection) -> None:
        parts, body = self._parts, self._request_body
        sent = self._request.written(self._lease.endpoint, body if parts is None else parts.as_stream(body))
        channel.begin(self, sent, self._splicer.pool.settings(), pieces=parts is not None)
        if self._is_paused:
            channel.set_paused(True)

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

    def answer(self, head: Head, body: bytes, channel: UpstreamConnection) -> None:
        """The whole answer has come in, and the channel is free."""
        self.account.answered(body)
        self._start(head.status, b"%bcontent-length: %d\r\n" % (head.lines, len(body)), body)
        self._channel = None
        self._splicer.pool.keep(channel)
        self._end(whole=True)

    def head(self, head: Head, body: bytes) -> None:
        """The answer's head has come in, and the raw bytes after it."""
        self._begins(head, body)
        if head.length is None:
            self._splicer.pool.prepare(self._lease.endpoint)

    def _begins(self, head: Head, body: bytes) -> None:
        self._head = head
        if self._parts is not None:
            if can_be_reassembled(head.status, head.headers):
                self._feed(self._parts)
                return
            self._parts = None
            self._pieces.clear()
        self.account.streamed = head.is_stream
        if self._hidden is not None and can_be_reassembled(head.status, head.headers):
            self._shown(body, self._hidden)
        else:
            self._hidden = None
            self._begin_answer(head, body)

    def _begin_answer(self, head: Head, body: bytes) -> None:
        if head.length is not None:
            framing = b"content-length: %d\r\n" % head.length
        elif head.is_chunked:
            framing = b"transfer-encoding: chunked\r\n"
        else:
            framing = b""
        shown = body if body.endswith(_BODY_END) else self._whole_events(body)
        self._start(head.status, head.lines + framing, shown, closes=head.ends_with_connection)
        if body:
            self.account.received(body)

    def _start(self, status: int, lines: bytes, body: bytes, *, closes: bool = False) -> None:
        self._has_started = True
        self.account.status = status
        lines = b"%bx-request-id: %b\r\n" % (lines, self.account.id.encode())
        self._client.start(status, lines, body, closes=closes)

    def piece(self, piece: bytes) -> None:
        self._pieces.append(piece)

    def body(self, data: bytes) -> None:
        """More raw bytes after the head."""
        if self._parts is not None:
            self._feed(self._parts)
            return
        if self._hidden is not None:
            data = self._shown(data, self._hidden)
            if not data:
                return
        self.account.received(data)
        if self._held or not data.endswith(_BODY_END):
            data = self._whole_events(data)
        else:
            self._is_between_events = True
        if data:
            self._write(data)

    def _shown(self, data: bytes, hidden: PromptProgressFilter) -> bytes:
        """What of a stream's beginning is for the client and has not left yet. Until there is some the head is held
        back, as what fails before the first token has a status of its own."""
        data = hidden.feed(data)
        if hidden.is_over:
            self._hidden = None
        if data and not self._has_started and self._head is not None:
            self._begin_answer(self._head, data)
            return b""
        return data

    def _whole_events(self, data: bytes) -> bytes:
        """`data` up to the end of an event, so that the client stands between two should the engine die. What has begun
        is held back once: of servers whose chunks end anywhere, nothing is delayed further.
        """
        if not self.account.streamed:
            return data
        if self._held:
            data, self._held = self._held + data, b""
        else:
            end = data.rfind(_EVENT_END)
            if end >= 0 or self._is_between_events:
                cut = end + len(_EVENT_END) if end >= 0 else 0
                data, self._held = data[:cut], data[cut:]
        if data:
            self._is_between_events = data.endswith(_EVENT_END)
        return data

    def complete(self, channel: UpstreamConnection) -> None:
        if self._hidden is not None:
            self.body(self._hidden.rest())
        self._channel = None
        self._splicer.pool.keep(channel)
        if self._held:
            self._write(self._held)
        if self._parts is None:
            self._end(whole=True)
        else:
            self._reassemble(self._parts)

    def died(self, channel: UpstreamConnection, error: ServiceError) -> None:
        """The engine's connection is of no more use."""
        if channel.was_kept and not channel.has_answered and not self._has_ended:
            self._reach(self._splicer.pool.connect(self._lease.endpoint))
        else:
            self.fail(error)

    # --- an answer from a stream ------------------------------------------------------------------

    def _feed(self, parts: StreamAggregator) -> None:
        try:
            for piece in self._pieces:
                parts.feed(piece)
                if parts.is_generating:
                    self.account.received(piece)
        except CannotAggregate:
            self._ask_plainly()
        self._pieces.clear()

    def _reassemble(self, parts: StreamAggregator) -> None:
        try:
            answer = parts.answer()
        except CannotAggregate:
            self._ask_plainly()
        except UpstreamFailed as error:
            self.fail(error)
        else:
            headers = for_answer(self._head.headers if self._head is not None else (), answer)
            self._start(answer.status, _lines(headers), answer.body)
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
        whole = True
        if not self._has_started:
            body = error_body(self._request.route.dialect, error)
            self._start(error.status, _lines(error_headers(error, body)), body)
        elif rest := self._error_at_the_end(error):
            self._write(rest)
        else:
            whole = False
        self._end(whole=whole)

    def _error_at_the_end(self, error: ServiceError) -> bytes | None:
        """What ends a stream, where it can still be ended."""
        if not self.account.streamed or self._channel is None:
            return None
        event = error_event(self._request.route.dialect, error)
        if self._held and self._head is not None and self._head.is_chunked:
            return last_chunks(event)
        return self._channel.closing(event)

    def _end(self, *, whole: bool) -> None:
        self._has_ended = True
        if self._channel is not None:
            self._channel.abort()
            self._channel = None
        self._splicer.scheduler.release(self._lease)
        self._splicer.live.end(self.account)
        self._client.ended(whole=whole)


def _lines(headers: Sequence[Header]) -> bytes:
    return b"".join(b"%b: %b\r\n" % header for header in headers)
