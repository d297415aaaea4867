"""Fast path of a request whose model is ready: two sockets joined, without a task or a coroutine while bytes pass.

The engine's body reaches the client as it comes, chunk framing included; only the heads are written anew. `Relay`
decides what is written, as it does on the slow path (`Proxy`), which takes each request that `FastPath.begin` declines.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from llama_async_proxy.errors import ServiceError
from llama_async_proxy.inference.in_flight import InFlightRequests
from llama_async_proxy.inference.relay import Relay, has_other_streams
from llama_async_proxy.inference.request_log import RequestLogEntry
from llama_async_proxy.inference.requests.forwarding import RequestHead, header_lines
from llama_async_proxy.inference.requests.names import Names, choose
from llama_async_proxy.inference.requests.routes import RoutingParameters, check_kind, routing_parameters
from llama_async_proxy.inference.scheduling.leases import Lease
from llama_async_proxy.inference.scheduling.scheduler import ModelScheduler
from llama_async_proxy.inference.upstream.connection import UpstreamConnection
from llama_async_proxy.inference.upstream.connection_pool import ConnectionPool
from llama_async_proxy.inference.upstream.response_headers import Header, ResponseHead


class ClientConnection(Protocol):
    """The client's connection, for one exchange."""

    @property
    def address(self) -> str:
        """Address of the peer, for the request log."""

    @property
    def write(self) -> Callable[[bytes], None]:
        """Writes more of the body, with its framing."""

    def start(self, status: int, lines: bytes, body: bytes, *, closes: bool = False) -> None:
        """Write the head and the first bytes of the body. `lines` are header lines, each with its line end. With
        `closes` the body ends with the connection."""

    def end(self, *, whole: bool) -> None:
        """Note the end of the response. Unless it is `whole` the connection must be closed."""


class FastPath:
    """Begins proxied exchanges."""

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
        """Send a request to its model. None for a request that needs the slow path; nothing has happened then."""
        try:
            asked = routing_parameters(head.route, head.query, head.headers, body)
            index = self._names.index
            if asked.model is None:
                return None
            model = choose(index, asked.model)
            check_kind(head.route, model)
        except Exception:  # the slow path meets it again, answers and logs it
            return None
        if index.variant(asked.model):
            return None
        exchange = ProxiedExchange(self, head, body, client)
        lease = self.scheduler.try_lease(model, exchange.fail)
        if lease is None:
            return None
        exchange.begin(lease, asked)
        return exchange


class ProxiedExchange(Relay):
    """One request on the fast path, from its lease to its record. The upstream connection calls it (see
    `ResponseListener`), and the client's connection calls `set_paused` and `client_left`."""

    __slots__ = ("_client", "_connection", "_fast_path", "_is_paused", "_lease", "_request", "_request_body")

    _passes_framing = True

    def __init__(self, fast_path: FastPath, request: RequestHead, body: bytes, client: ClientConnection) -> None:
        entry = RequestLogEntry(client.address, request.route.path, request.own_id, request.key)
        super().__init__(request.route, entry, client.write)
        self._fast_path = fast_path
        self._request = request
        self._request_body = body
        self._client = client
        self._lease: Lease
        self._connection: UpstreamConnection | None = None
        self._is_paused = False

    def begin(self, lease: Lease, asked: RoutingParameters) -> None:
        """Send the request to the model of `lease`."""
        self._lease = lease
        self.prepare(asked, lease.model)
        if asked.aggregates and self._is_asked_plainly(lease):
            self.ask_plainly()
        self.entry.resolved(lease.model)
        self.entry.leased(lease)
        self.ask_again()
        if not self.has_ended:  # listed after the request was sent, which saves time before it
            self._fast_path.in_flight.add(self.entry, self.fail)

    def set_paused(self, paused: bool) -> None:
        """Stop reading from the engine while the client reads more slowly than the engine writes."""
        self._is_paused = paused
        if self._connection is not None:
            self._connection.set_paused(paused)

    # --- ResponseListener, beside the inherited `on_chunk` and `on_body` ------------------------------

    def on_ready(self, connection: UpstreamConnection) -> None:
        sent = self._request.to_bytes(self._lease.endpoint, self.request_body(self._request_body))
        connection.send(sent, self._fast_path.pool.settings(), chunks=self.reads_chunks)
        if self._is_paused:
            connection.set_paused(True)

    def on_answer(self, head: ResponseHead, body: bytes, connection: UpstreamConnection) -> None:
        self._put_back(connection)
        self.answer(head, body)

    def on_head(self, head: ResponseHead, data: bytes) -> None:
        super().on_head(head, data)
        if head.length is None:
            self._fast_path.pool.connect_ahead(self._lease.endpoint)

    def on_complete(self, connection: UpstreamConnection) -> None:
        self._put_back(connection)
        self.complete()

    def on_disconnect(self, connection: UpstreamConnection, error: ServiceError) -> None:
        if connection.was_stale and not self.has_ended:
            self._connect(self._fast_path.pool.connect(self._lease.endpoint))
        else:
            self.fail(error)

    def on_failure(self, error: ServiceError) -> None:
        self.fail(error)

    # --- outputs of the relay -----------------------------------------------------------------------

    def start(self, head: ResponseHead, body: bytes, length: int | None) -> None:
        if length is not None:
            framing = b"content-length: %d\r\n" % length
        else:
            framing = b"transfer-encoding: chunked\r\n" if head.is_chunked else b""
        lines = b"%b%bx-request-id: %b\r\n" % (head.lines, framing, self.entry.id.encode())
        self._client.start(head.status, lines, body, closes=length is None and head.ends_with_connection)

    def reply(self, status: int, headers: Sequence[Header], body: bytes) -> None:
        lines = b"%bx-request-id: %b\r\n" % (header_lines(headers), self.entry.id.encode())
        self._client.start(status, lines, body)

    def ask_again(self) -> None:
        if self._connection is not None:
            self._connection.abort()
        if self.is_stream_unknown:
            self._fast_path.pool.plain_endpoints.add(self._lease.endpoint)
        self._connect(self._fast_path.pool.take(self._lease.endpoint))

    def end(self, *, whole: bool) -> None:
        if self._connection is not None:
            self._connection.abort()
            self._connection = None
        self._fast_path.scheduler.release(self._lease)
        self._fast_path.in_flight.end(self.entry)
        self._client.end(whole=whole)

    def _is_asked_plainly(self, lease: Lease) -> bool:
        options = self._fast_path.scheduler.runtime(lease.model.id).options
        return lease.endpoint in self._fast_path.pool.plain_endpoints or has_other_streams(options)

    def _connect(self, connection: UpstreamConnection) -> None:
        self._connection = connection
        connection.when_ready(self)

    def _put_back(self, connection: UpstreamConnection) -> None:
        self._connection = None
        self._fast_path.pool.put_back(connection)
