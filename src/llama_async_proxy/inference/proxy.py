"""One inference request from its parsed head and body to the last byte of its answer, whatever server it came through.

Bytes pass verbatim in both directions; only headers that belong to one connection, to us or to the engine's own CORS
are dropped. A client that leaves cancels everything below it, down to the engine's socket.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Protocol

from msgspec import Struct
from msgspec.structs import replace

from llama_async_proxy.errors import InvalidInput, ServiceError
from llama_async_proxy.inference.cancellation import CancelScope, ended
from llama_async_proxy.inference.in_flight import InFlightRequests
from llama_async_proxy.inference.request_log import RequestLogEntry, key_id, request_id
from llama_async_proxy.inference.requests.names import Names, choose, choose_unnamed
from llama_async_proxy.inference.requests.priority import priority_of
from llama_async_proxy.inference.requests.routes import (
    Headers,
    InferenceRoute,
    RoutingParameters,
    check_kind,
    forbids_loading,
    routing_parameters,
)
from llama_async_proxy.inference.requests.variants import with_defaults
from llama_async_proxy.inference.response_writer import KeepAliveComments, Reply, ResponseWriter
from llama_async_proxy.inference.scheduling.leases import Lease
from llama_async_proxy.inference.scheduling.scheduler import ModelScheduler
from llama_async_proxy.inference.streaming.aggregator import CannotAggregate, begin_aggregation
from llama_async_proxy.inference.streaming.prompt_progress import PromptProgressFilter, with_progress
from llama_async_proxy.inference.upstream.client import UpstreamClient, UpstreamRequest
from llama_async_proxy.inference.upstream.response_headers import HOP_BY_HOP, Header
from llama_async_proxy.records.models import Model

CLIENT_GONE = 499
"""The status recorded for a client that left, as nginx writes it; nobody receives it."""
logger = logging.getLogger(__name__)
_NOT_FOR_THE_ENGINE = HOP_BY_HOP | {
    *(b"host", b"content-length", b"expect"),  # written anew for the engine's connection
    *(b"authorization", b"proxy-authorization", b"x-api-key", b"cookie"),  # secrets meant for us
    *(b"origin", b"referer"),  # the engine would answer any origin with its consent
    b"accept-encoding",  # a compressed stream could neither be counted nor end with an error event
    b"x-conversation-id",  # with it the engine would go on when the client has left
}


class InferenceRequest(Struct, frozen=True):
    route: InferenceRoute
    method: str
    query: bytes
    headers: Headers
    body: bytes
    client: str
    """Address of the peer, for the record."""


class ModelRegistry(Protocol):
    """The part of the model registry that a request waits for, or asks."""

    async def wait_for(self, is_known: Callable[[], bool]) -> None:
        """Return when `is_known`, or the first scan has ended, or that takes too long."""

    @property
    def has_scanned(self) -> bool:
        """False while the first scan may still find models."""

    def default_model(self, kind: str) -> str:
        """The name of the model for requests of a kind that name none; empty when none is set."""


class ClientGone(Exception):
    """The client closed its connection before its answer was complete."""

    def __init__(self) -> None:
        super().__init__("the client closed its connection")


class Proxy:
    def __init__(
        self,
        *,
        names: Names,
        scheduler: ModelScheduler,
        client: UpstreamClient,
        in_flight: InFlightRequests,
        registry: ModelRegistry,
        keep_alive: KeepAliveComments = KeepAliveComments(),  # noqa: B008 - frozen
    ) -> None:
        self._names = names
        self._scheduler = scheduler
        self._client = client
        self._in_flight = in_flight
        self._registry = registry
        self._keep_alive = keep_alive

    @property
    def knows_all_models(self) -> bool:
        """False while the first scan may still find models."""
        return self._registry.has_scanned

    async def handle(self, request: InferenceRequest, reply: Reply, gone: Callable[[], Awaitable[None]]) -> None:
        """Answer `request`. `gone` returns when the client has closed its connection.

        Raises nothing for what clients and engines do. An answer that broke off and can carry no error is left without
        its last byte: the caller closes the connection then, which is how HTTP says so.
        """
        entry = _entry(request)
        writer = ResponseWriter(reply, request.route.api_format, entry)
        try:
            await self._serve(request, writer, entry, gone)
        except ClientGone as error:
            entry.status, entry.error = CLIENT_GONE, str(error)
        except ServiceError as error:
            await writer.fail(error)
        except asyncio.CancelledError:
            entry.status, entry.error = entry.status or 503, "the service stopped"
            raise
        except Exception:  # a fault of ours: the client gets an answer, the log the trace
            logger.exception("Inference request %s to %s failed", entry.id, request.route.path)
            await writer.fail(ServiceError(f"Internal error; the service's log has it under {entry.id}."))
        finally:
            self._in_flight.end(entry)

    async def refuse(self, request: InferenceRequest, reply: Reply, error: ServiceError) -> None:
        """Answer with `error`; the body of `request` need not have been read."""
        entry = _entry(request)
        try:
            await ResponseWriter(reply, request.route.api_format, entry).fail(error)
        finally:
            self._in_flight.end(entry)

    async def _serve(
        self,
        request: InferenceRequest,
        writer: ResponseWriter,
        entry: RequestLogEntry,
        gone: Callable[[], Awaitable[None]],
    ) -> None:
        asked = routing_parameters(request.route, request.query, request.headers, request.body)
        entry.model = asked.model or ""
        model = await self._chosen(request, asked.model)
        entry.resolved(model)
        check_kind(request.route, model)
        if not self._scheduler.is_ready(model) and forbids_loading(request.method, request.query, request.headers):
            raise InvalidInput("model", f"{model.slug!r} is not loaded, and this request may not load it")
        if variant := self._names.index.variant(asked.model):
            request = replace(request, body=with_defaults(variant, request.route, request.body))
            asked = routing_parameters(request.route, request.query, request.headers, request.body)

        async def client_gone() -> Exception:
            await gone()
            return ClientGone()

        async with CancelScope(client_gone) as scope:
            self._in_flight.add(entry, scope.cancel)
            claim = self._scheduler.lease(model, scope.cancel, priority_of(request.headers))
            async with self._leased(model, claim, writer if asked.stream else None) as lease:
                entry.leased(lease)
                await self._exchange(request, asked, lease, writer)
                # Not later: some servers report a finished exchange as a gone client.
                scope.shield()

    async def _chosen(self, request: InferenceRequest, name: str | None) -> Model:
        """The model of a request. Until the first scan has ended an unknown name may still become known."""
        index = self._names.index
        if name is not None:
            if index.resolve(name) is None:
                await self._registry.wait_for(lambda: self._names.index.resolve(name) is not None)
            return choose(self._names.index, name)
        await self._registry.wait_for(lambda: False)
        default = self._registry.default_model(request.route.default_kind(request.body))
        return choose_unnamed(self._names.index, request.route.kind, default, loaded=self._scheduler.loaded())

    async def _exchange(
        self, request: InferenceRequest, asked: RoutingParameters, lease: Lease, writer: ResponseWriter
    ) -> None:
        aggregates = asked.aggregates and not lease.model.has_command
        if aggregates and await self._reassembled(request, lease, writer):
            return
        progress_filter = None
        if asked.filters_progress and not lease.model.has_command:
            progress_filter, request = PromptProgressFilter(), replace(request, body=with_progress(request.body))
        async with self._client.request(lease.endpoint, to_upstream_request(request)) as response:
            await writer.relay(response, progress_filter)

    async def _reassembled(self, request: InferenceRequest, lease: Lease, writer: ResponseWriter) -> bool:
        """Answer from a stream. False when that cannot be done; nothing has left then."""
        upstream = to_upstream_request(request)
        aggregator = begin_aggregation(request.route.path)
        streaming = replace(upstream, body=aggregator.as_stream(upstream.body))
        async with self._client.request(lease.endpoint, streaming) as response:
            try:
                await writer.reassemble(response, aggregator)
            except CannotAggregate:
                return False
        return True

    @asynccontextmanager
    async def _leased(
        self, model: Model, claim: AbstractAsyncContextManager[Lease], waiting: ResponseWriter | None
    ) -> AsyncIterator[Lease]:
        """A lease on `model`; a client `waiting` for a stream is kept company until it is granted."""
        if waiting is None or self._scheduler.is_ready(model):
            async with claim as lease:
                yield lease
            return
        comments = asyncio.create_task(waiting.send_keep_alive_comments(self._keep_alive))
        try:
            async with claim as lease:
                await ended(comments)
                yield lease
        finally:
            await ended(comments)


def _entry(request: InferenceRequest) -> RequestLogEntry:
    return RequestLogEntry(request.client, request.route.path, request_id(request.headers), key_id(request.headers))


def to_upstream_request(request: InferenceRequest) -> UpstreamRequest:
    """The request as the engine gets it: without what concerns only us and our client."""
    target = request.route.path.encode()
    return UpstreamRequest(
        request.method,
        target + b"?" + request.query if request.query else target,
        forwarded_headers(request.headers),
        request.body,
    )


def forwarded_headers(headers: Headers) -> list[Header]:
    """A client's headers without those that are not for the engine, nor those its Connection header names."""
    named = {token.strip().lower() for name, value in headers if name == b"connection" for token in value.split(b",")}
    return [(name, value) for name, value in headers if name not in _NOT_FOR_THE_ENGINE and name not in named]
