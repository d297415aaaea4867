"""The short way of a request whose model is ready: two sockets joined, no task and no coroutine while bytes pass.

The engine's body reaches the client byte for byte, chunk framing included; only the heads are written anew. It does
what `Proxy` would do when nothing has to be waited for; `FastPath.begin` says None to everything else.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from llama_async_proxy.errors import ServiceError, UpstreamFailed
from llama_async_proxy.inference.in_flight import InFlightRequests
from llama_async_proxy.inference.proxy import (
    CLIENT_GONE,
    ClientGone,
    InferenceRequest,
    forwarded_headers,
    to_upstream_request,
)
from llama_async_proxy.inference.request_log import RequestLogEntry, key_id, request_id
from llama_async_proxy.inference.requests.error_formats import error_body, error_event
from llama_async_proxy.inference.requests.names import Names, choose
from llama_async_proxy.inference.requests.routes import InferenceRoute, check_kind, routing_parameters
from llama_async_proxy.inference.response_writer import aggregated_headers, can_aggregate, error_headers
from llama_async_proxy.inference.scheduling.leases import Lease
from llama_async_proxy.inference.scheduling.scheduler import ModelScheduler
from llama_async_proxy.inference.streaming.aggregator import CannotAggregate, StreamAggregator, begin_aggregation
from llama_async_proxy.inference.streaming.prompt_progress import PromptProgressFilter, with_progress
from llama_async_proxy.inference.upstream.client import authority, authorization
from llama_async_proxy.inference.upstream.connection import UpstreamConnection, last_chunks
from llama_async_proxy.inference.upstream.connection_pool import ConnectionPool
from llama_async_proxy.inference.upstream.response_headers import Header, ResponseHead
from llama_async_proxy.records.runtime import Endpoint

_EVENT_END = b"\n\n\r\n"
"""The end of an event and of the chunk that holds it."""
_BODY_END = (_EVENT_END, b"\r\n0\r\n\r\n")


class ClientConnection(Protocol):
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

    def end(self, *, whole: bool) -> None:
        """The answer ended; when it is not `whole`, only closing the connection can tell the client."""


class RequestHead:
    """What the requests of a connection have in common as long as only their bodies differ."""

    __slots__ = ("_begins", "_endpoint", "_lines", "headers", "key", "method", "own_id", "query", "route")

    def __init__(self, route: InferenceRoute, method: str, query: bytes, headers: Sequence[Header]) -> None:
        self.route = route
        self.method = method
        self.query = query
        self.headers = headers
        self.own_id = request_id(headers)
        self.key = key_id(headers)
        self._lines = _lines(forwarded_headers(headers))
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
        plain = to_upstream_request(InferenceRequest(self.route, self.method, self.query, self.headers, body, ""))
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
        in_flight: InFlightRequests,
    ) -> None:
        self.pool = pool
        self.in_flight = in_flight
        self._names = names
        self.scheduler = scheduler

    def begin(self, head: RequestHead, body: bytes, client: ClientConnection) -> ProxiedExchange | None:
        """Send a request to its model. None when it needs another treatment; nothing has happened then."""
        try:
            asked = routing_parameters(head.route, head.query, head.headers, body)
            index = self._names.index
            if asked.model is None:
                return None
            model = choose(index, asked.model)
            check_kind(head.route, model)
        except Exception:  # the long way meets it again, and answers and logs it
            return None
        if index.variant(asked.model):
            return None
        exchange = ProxiedExchange(self, head, body, client)
        lease = self.scheduler.try_lease(model, exchange.fail)
        if lease is None:
            return None
        # Of other servers it is not known how their streams and their whole answers differ.
        aggregates = asked.aggregates and not model.has_command
        if asked.filters_progress and not model.has_command:
            exchange.filter_progress()
        exchange.begin(lease, begin_aggregation(head.route.path) if aggregates else None)
        return exchange


class ProxiedExchange:
    """One request on its way, from its lease to its record."""

    __slots__ = (
        "_aggregator",
        "_chunks",
        "_client",
        "_connection",
        "_fast_path",
        "_has_ended",
        "_has_started",
        "_head",
        "_held",
        "_is_between_events",
        "_is_paused",
        "_lease",
        "_progress_filter",
        "_request",
        "_request_body",
        "_write",
        "entry",
    )

    def __init__(self, fast_path: FastPath, request: RequestHead, body: bytes, client: ClientConnection) -> None:
        self.entry = RequestLogEntry(client.address, request.route.path, request.own_id, request.key)
        self._fast_path = fast_path
        self._request = request
        self._request_body = body
        self._client = client
        self._write = client.write
        self._aggregator: StreamAggregator | None = None
        """What the answer is put together from, when it is."""
        self._chunks: list[bytes] = []
        """Of the body, not yet among the parts."""
        self._progress_filter: PromptProgressFilter | None = None
        """What the client is not shown of a stream."""
        self._held = b""
        """Of a stream, the beginning of an event that had not come whole."""
        self._is_between_events = True
        """The client is, with what it has been sent of a stream."""
        self._lease: Lease
        self._head: ResponseHead | None = None
        self._connection: UpstreamConnection | None = None
        self._is_paused = False
        self._has_started = False
        self._has_ended = False

    # --- beginning --------------------------------------------------------------------------------

    def filter_progress(self) -> None:
        """Have the engine tell its progress, but not the client."""
        self._progress_filter = PromptProgressFilter()
        self._request_body = with_progress(self._request_body)

    def begin(self, lease: Lease, aggregator: StreamAggregator | None) -> None:
        self._lease = lease
        self._aggregator = aggregator
        self.entry.resolved(lease.model)
        self.entry.leased(lease)
        self._ask()
        if not self._has_ended:  # after the request has left: nobody looks for it before
            self._fast_path.in_flight.add(self.entry, self.fail)

    def _ask(self) -> None:
        self._when_ready(self._fast_path.pool.take(self._lease.endpoint))

    def _when_ready(self, connection: UpstreamConnection) -> None:
        self._connection = connection
        connection.when_ready(self)

    def on_ready(self, connection: UpstreamConnection) -> None:
        aggregator, body = self._aggregator, self._request_body
        sent = self._request.written(self._lease.endpoint, body if aggregator is None else aggregator.as_stream(body))
        connection.send(sent, self._fast_path.pool.settings(), chunks=aggregator is not None)
        if self._is_paused:
            connection.set_paused(True)

    # --- what the client's connection says --------------------------------------------------------

    def set_paused(self, paused: bool) -> None:
        """Whether the client reads more slowly than the engine writes."""
        self._is_paused = paused
        if self._connection is not None:
            self._connection.set_paused(paused)

    def client_gone(self) -> None:
        """Its connection is lost; nothing can be written any more."""
        if not self._has_ended:
            gone = ClientGone()
            self.entry.status, self.entry.error = CLIENT_GONE, str(gone)
            self._end(whole=False)

    # --- what the engine's connection says --------------------------------------------------------

    def on_answer(self, head: ResponseHead, body: bytes, connection: UpstreamConnection) -> None:
        """The whole answer has come in, and the channel is free."""
        self.entry.answered(body)
        self._start(head.status, b"%bcontent-length: %d\r\n" % (head.lines, len(body)), body)
        self._connection = None
        self._fast_path.pool.put_back(connection)
        self._end(whole=True)

    def on_head(self, head: ResponseHead, body: bytes) -> None:
        """The answer's head has come in, and the raw bytes after it."""
        self._read_head(head, body)
        if head.length is None:
            self._fast_path.pool.connect_ahead(self._lease.endpoint)

    def _read_head(self, head: ResponseHead, body: bytes) -> None:
        self._head = head
        if self._aggregator is not None:
            if can_aggregate(head.status, head.headers):
                self._feed(self._aggregator)
                return
            self._aggregator = None
            self._chunks.clear()
        self.entry.streamed = head.is_stream
        if self._progress_filter is not None and can_aggregate(head.status, head.headers):
            self._shown(body, self._progress_filter)
        else:
            self._progress_filter = None
            self._begin_answer(head, body)

    def _begin_answer(self, head: ResponseHead, body: bytes) -> None:
        if head.length is not None:
            reader = b"content-length: %d\r\n" % head.length
        elif head.is_chunked:
            reader = b"transfer-encoding: chunked\r\n"
        else:
            reader = b""
        shown = body if body.endswith(_BODY_END) else self._whole_events(body)
        self._start(head.status, head.lines + reader, shown, closes=head.ends_with_connection)
        if body:
            self.entry.received(body)

    def _start(self, status: int, lines: bytes, body: bytes, *, closes: bool = False) -> None:
        self._has_started = True
        self.entry.status = status
        lines = b"%bx-request-id: %b\r\n" % (lines, self.entry.id.encode())
        self._client.start(status, lines, body, closes=closes)

    def on_chunk(self, chunk: bytes) -> None:
        self._chunks.append(chunk)

    def on_body(self, data: bytes) -> None:
        """More raw bytes after the head."""
        if self._aggregator is not None:
            self._feed(self._aggregator)
            return
        if self._progress_filter is not None:
            data = self._shown(data, self._progress_filter)
            if not data:
                return
        self.entry.received(data)
        if self._held or not data.endswith(_BODY_END):
            data = self._whole_events(data)
        else:
            self._is_between_events = True
        if data:
            self._write(data)

    def _shown(self, data: bytes, progress_filter: PromptProgressFilter) -> bytes:
        """What of a stream's beginning is for the client and has not left yet. Until there is some the head is held
        back, as what fails before the first token has a status of its own."""
        data = progress_filter.feed(data)
        if progress_filter.is_over:
            self._progress_filter = None
        if data and not self._has_started and self._head is not None:
            self._begin_answer(self._head, data)
            return b""
        return data

    def _whole_events(self, data: bytes) -> bytes:
        """`data` up to the end of an event, so that the client stands between two should the engine die. What has begun
        is held back once: of servers whose chunks end anywhere, nothing is delayed further.
        """
        if not self.entry.streamed:
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

    def on_complete(self, connection: UpstreamConnection) -> None:
        if self._progress_filter is not None:
            self.on_body(self._progress_filter.rest())
        self._connection = None
        self._fast_path.pool.put_back(connection)
        if self._held:
            self._write(self._held)
        if self._aggregator is None:
            self._end(whole=True)
        else:
            self._reassemble(self._aggregator)

    def on_disconnect(self, connection: UpstreamConnection, error: ServiceError) -> None:
        """The engine's connection is of no more use."""
        if connection.reused and not connection.has_answered and not self._has_ended:
            self._when_ready(self._fast_path.pool.connect(self._lease.endpoint))
        else:
            self.fail(error)

    # --- an answer from a stream ------------------------------------------------------------------

    def _feed(self, aggregator: StreamAggregator) -> None:
        try:
            for chunk in self._chunks:
                aggregator.feed(chunk)
                if aggregator.is_generating:
                    self.entry.received(chunk)
        except CannotAggregate:
            self._ask_plainly()
        self._chunks.clear()

    def _reassemble(self, aggregator: StreamAggregator) -> None:
        try:
            answer = aggregator.answer()
        except CannotAggregate:
            self._ask_plainly()
        except UpstreamFailed as error:
            self.fail(error)
        else:
            headers = aggregated_headers(self._head.headers if self._head is not None else (), answer)
            self._start(answer.status, _lines(headers), answer.body)
            self._end(whole=True)

    def _ask_plainly(self) -> None:
        """Nothing has left yet: ask again, as the client did."""
        self._aggregator = None
        if self._connection is not None:
            self._connection.abort()
            self._connection = None
        self._ask()

    # --- ending -----------------------------------------------------------------------------------

    def on_failure(self, error: ServiceError) -> None:
        self.fail(error)

    def fail(self, error: ServiceError) -> None:
        """Break off, and tell the client in whatever form still fits."""
        if self._has_ended:
            return
        self.entry.error = error.message
        whole = True
        if not self._has_started:
            body = error_body(self._request.route.api_format, error)
            self._start(error.status, _lines(error_headers(error, body)), body)
        elif rest := self._error_at_the_end(error):
            self._write(rest)
        else:
            whole = False
        self._end(whole=whole)

    def _error_at_the_end(self, error: ServiceError) -> bytes | None:
        """What ends a stream, where it can still be ended."""
        if not self.entry.streamed or self._connection is None:
            return None
        event = error_event(self._request.route.api_format, error)
        if self._held and self._head is not None and self._head.is_chunked:
            return last_chunks(event)
        return self._connection.closing(event)

    def _end(self, *, whole: bool) -> None:
        self._has_ended = True
        if self._connection is not None:
            self._connection.abort()
            self._connection = None
        self._fast_path.scheduler.release(self._lease)
        self._fast_path.in_flight.end(self.entry)
        self._client.end(whole=whole)


def _lines(headers: Sequence[Header]) -> bytes:
    return b"".join(b"%b: %b\r\n" % header for header in headers)
