"""Slow path of an inference request: from its parsed head and body to the last byte of its response, whatever server it
came through.

`Relay` decides what is written, as it does on the fast path. A client that leaves cancels everything below it, down to
the engine's socket.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Protocol

from msgspec.structs import replace

from llama_async_proxy.errors import InvalidInput, ServiceError
from llama_async_proxy.inference.cancellation import CancelScope, ended
from llama_async_proxy.inference.in_flight import InFlightRequests
from llama_async_proxy.inference.relay import has_other_streams
from llama_async_proxy.inference.request_log import RequestLogEntry, key_id, request_id
from llama_async_proxy.inference.requests.forwarding import InferenceRequest, to_upstream_request
from llama_async_proxy.inference.requests.names import Names, choose, choose_unnamed
from llama_async_proxy.inference.requests.priority import priority_of
from llama_async_proxy.inference.requests.routes import (
    RoutingParameters,
    check_kind,
    forbids_loading,
    routing_parameters,
)
from llama_async_proxy.inference.requests.variants import with_defaults
from llama_async_proxy.inference.response_writer import KeepAliveComments, Reply, ResponseWriter
from llama_async_proxy.inference.scheduling.leases import Lease
from llama_async_proxy.inference.scheduling.scheduler import ModelScheduler
from llama_async_proxy.inference.upstream.client import UpstreamClient
from llama_async_proxy.records.models import Model

logger = logging.getLogger(__name__)


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
    """The client closed its connection before its response was complete."""


class Proxy:
    """Slow path of inference requests: waits for models to load, and for engines and clients."""

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

    async def handle(self, request: InferenceRequest, reply: Reply, gone: Callable[[], Awaitable[None]]) -> int:
        """Answer `request`. `gone` returns when the client has closed its connection. Returns the status that is
        recorded.

        Failures of clients and engines raise nothing. A response that broke off and cannot carry an error is left
        without its last byte: the caller must close the connection then.
        """
        writer = ResponseWriter(request.route, _log_entry(request), reply)
        try:
            await self._serve(request, writer, gone)
        except ClientGone:
            writer.client_left()
        except ServiceError as error:
            await _fail(writer, error)
        except asyncio.CancelledError:
            entry = writer.entry
            entry.status, entry.error = entry.status or 503, "the service stopped"
            raise
        except Exception:  # a fault of the service: the client gets an answer, the log the trace
            entry = writer.entry
            logger.exception("Inference request %s to %s failed", entry.id, request.route.path)
            await _fail(writer, ServiceError(f"Internal error; the service's log has it under {entry.id}."))
        finally:
            self._in_flight.end(writer.entry)
        return writer.entry.status

    async def refuse(self, request: InferenceRequest, reply: Reply, error: ServiceError) -> None:
        """Answer with `error`; the body of `request` need not have been read."""
        writer = ResponseWriter(request.route, _log_entry(request), reply)
        try:
            await _fail(writer, error)
        finally:
            self._in_flight.end(writer.entry)

    async def _serve(
        self, request: InferenceRequest, writer: ResponseWriter, gone: Callable[[], Awaitable[None]]
    ) -> None:
        asked = _parameters(request)
        writer.entry.model = asked.model or ""
        model = await self._chosen(request, asked.model)
        writer.entry.resolved(model)
        check_kind(request.route, model)
        if not self._scheduler.is_ready(model) and forbids_loading(request.method, request.query, request.headers):
            raise InvalidInput("model", f"{model.slug!r} is not loaded, and this request may not load it")
        if variant := self._names.index.variant(asked.model):
            request = replace(request, body=with_defaults(variant, request.route, request.body))
            asked = _parameters(request)
        writer.prepare(asked, model)

        async def client_gone() -> Exception:
            await gone()
            return ClientGone()

        async with CancelScope(client_gone) as scope:
            self._in_flight.add(writer.entry, scope.cancel)
            claim = self._scheduler.lease(model, scope.cancel, priority_of(request.headers))
            async with self._leased(model, claim, writer if asked.stream else None) as lease:
                writer.entry.leased(lease)
                await self._exchange(request, lease, writer)
                # Here and not later: some servers report a finished exchange as a client that has left.
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

    async def _exchange(self, request: InferenceRequest, lease: Lease, writer: ResponseWriter) -> None:
        plain_endpoints = self._client.plain_endpoints
        options = self._scheduler.runtime(lease.model.id).options
        if lease.endpoint in plain_endpoints or has_other_streams(options):
            writer.ask_plainly()
        while not writer.has_ended:
            sent = replace(request, body=writer.request_body(request.body))
            async with self._client.request(lease.endpoint, to_upstream_request(sent)) as response:
                await writer.relay(response)
            if writer.is_stream_unknown:
                plain_endpoints.add(lease.endpoint)

    @asynccontextmanager
    async def _leased(
        self, model: Model, claim: AbstractAsyncContextManager[Lease], waiting: ResponseWriter | None
    ) -> AsyncIterator[Lease]:
        """A lease on `model`; a client that is `waiting` for a stream gets comments until the lease is granted."""
        if waiting is None or self._scheduler.is_ready(model):
            async with claim as lease:
                yield lease
            return
        comments = asyncio.create_task(waiting.keep_alive(self._keep_alive))
        try:
            async with claim as lease:
                await ended(comments)
                yield lease
        finally:
            await ended(comments)


def _log_entry(request: InferenceRequest) -> RequestLogEntry:
    return RequestLogEntry(request.client, request.route.path, request_id(request.headers), key_id(request.headers))


def _parameters(request: InferenceRequest) -> RoutingParameters:
    return routing_parameters(request.route, request.query, request.headers, request.body)


async def _fail(writer: ResponseWriter, error: ServiceError) -> None:
    writer.fail(error)
    await writer.flush()
