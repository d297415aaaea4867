"""Chat completions that the service itself requests: leased, streamed and recorded like a client's."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import msgspec

from llama_async_proxy.errors import Cancelled, ContextExceeded, ServiceError, UpstreamFailed
from llama_async_proxy.inference.cancellation import CancelScope
from llama_async_proxy.inference.in_flight import InFlightRequests
from llama_async_proxy.inference.request_log import CLIENT_GONE, RequestLogEntry
from llama_async_proxy.inference.requests.names import Names, choose
from llama_async_proxy.inference.requests.routes import InferenceRoute
from llama_async_proxy.inference.requests.variants import with_defaults
from llama_async_proxy.inference.scheduling.scheduler import ModelScheduler
from llama_async_proxy.inference.streaming import sse
from llama_async_proxy.inference.streaming.aggregator import SizeLimit
from llama_async_proxy.inference.streaming.stream_errors import error_in
from llama_async_proxy.inference.upstream.client import UpstreamClient, UpstreamRequest, UpstreamResponse
from llama_async_proxy.records.chats import Completion, CompletionRequest
from llama_async_proxy.records.models import Model

_ROUTE = InferenceRoute("POST", "/v1/chat/completions", streams=True)
_HEADERS = ((b"content-type", b"application/json"),)
_MAX_ERROR_BODY = 64 * 1024
_MAX_ERROR_MESSAGE = 2000
"""Characters."""
_DONE = b"[DONE]"


class _Stopped(Exception):
    """The caller stopped the completion."""


Grow = Callable[[str, str], None]
"""Receives text of the answer and of the reasoning as they come; either may be empty."""


class Completer:
    """Requests chat completions from models."""

    def __init__(
        self,
        *,
        names: Names,
        scheduler: ModelScheduler,
        client: UpstreamClient,
        in_flight: InFlightRequests,
    ) -> None:
        self._names = names
        self._scheduler = scheduler
        self._client = client
        self._in_flight = in_flight

    def find(self, name: str) -> Model:
        """The model called `name`. Raises NotFound with similar names."""
        return choose(self._names.index, name)

    def is_idle(self, name: str) -> bool:
        """True if the model called `name` is loaded and has no request in flight."""
        model = self.find(name)
        return self._scheduler.is_ready(model) and not self._scheduler.in_flight(model.id)

    async def complete(
        self, request: CompletionRequest, grow: Grow, stopped: Callable[[], Awaitable[object]]
    ) -> Completion:
        """Request a completion, loading the model first if needed. The return of `stopped`, or cancelling the request
        by its id, ends it early.

        Raises NotFound for an unknown model, the errors of a lease, and UpstreamFailed for an error of the engine.
        """
        entry = RequestLogEntry(request.client, request.route)
        entry.model, entry.status, entry.streamed = request.model, 200, True
        was_stopped = False
        try:
            await self._run(request, grow, stopped, entry)
        except (_Stopped, Cancelled):
            was_stopped = True
            entry.status = CLIENT_GONE
        except ServiceError as error:
            entry.status, entry.error = error.status, error.message
            raise
        except asyncio.CancelledError:
            entry.status, entry.error = 503, "the service stopped"
            raise
        finally:
            self._in_flight.end(entry)
        return Completion(entry.record(), was_stopped)

    async def _run(
        self, request: CompletionRequest, grow: Grow, stopped: Callable[[], Awaitable[object]], entry: RequestLogEntry
    ) -> None:
        model = self.find(request.model)
        entry.resolved(model)

        async def stop() -> Exception:
            await stopped()
            return _Stopped()

        async with CancelScope(stop) as scope:
            self._in_flight.add(entry, scope.cancel)
            async with self._scheduler.lease(model, scope.cancel) as lease:
                entry.leased(lease)
                sent = UpstreamRequest("POST", _ROUTE.path.encode(), _HEADERS, self._body(model, request))
                async with self._client.request(lease.endpoint, sent) as response:
                    await _read(response, grow, entry)
                    scope.shield()

    def _body(self, model: Model, request: CompletionRequest) -> bytes:
        ours = {"model": model.slug, "stream": True, "stream_options": {"include_usage": True}}
        body = msgspec.json.encode({**request.body, **ours})
        variant = self._names.index.variant(request.model)
        return with_defaults(variant, _ROUTE, body) if variant else body


async def _read(response: UpstreamResponse, grow: Grow, entry: RequestLogEntry) -> None:
    if not response.head.is_stream:
        raise await _refusal(response)
    events, limit, is_complete = sse.EventReader(), SizeLimit(), False
    while not response.ended:
        chunk = await response.read()
        entry.received(chunk)
        for event in events.feed(chunk):
            limit.spend(len(event.data))
            is_complete = event.data == _DONE or _emit(event, grow) or is_complete
    for event in events.rest():
        is_complete = event.data == _DONE or _emit(event, grow) or is_complete
    if not is_complete:
        raise UpstreamFailed("The model's process ended its answer before it was complete.")


async def _refusal(response: UpstreamResponse) -> UpstreamFailed:
    body = b""
    while not response.ended and len(body) < _MAX_ERROR_BODY:
        body += await response.read()
    try:
        error = _EVENT.decode(body).error
    except (msgspec.DecodeError, UnicodeDecodeError):
        error = None
    shown = error.message[:_MAX_ERROR_MESSAGE] if error else body[:200].decode("utf-8", "replace")
    message = f"The model's process answered {response.status}: {shown}"
    if error and error.n_prompt_tokens and error.n_ctx:
        return ContextExceeded(message, error.n_prompt_tokens, error.n_ctx)
    return UpstreamFailed(message)


class _CompletionDelta(msgspec.Struct):
    content: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    """Name of the same in other servers, some of which send both."""


class _Choice(msgspec.Struct):
    delta: _CompletionDelta | None = None
    finish_reason: str | None = None


class _Error(msgspec.Struct):
    message: str
    n_prompt_tokens: int = 0
    n_ctx: int = 0
    """Both are set only for a prompt that is too long."""


class _Event(msgspec.Struct):
    choices: list[_Choice] = []
    error: _Error | None = None


_EVENT = msgspec.json.Decoder(_Event)


def _emit(event: sse.StreamEvent, grow: Grow) -> bool:
    """Hand on the text of one event. True when the answer is complete with it. Raises UpstreamFailed."""
    if error := error_in(event):
        raise UpstreamFailed(error.message[:_MAX_ERROR_MESSAGE])
    try:
        choices = _EVENT.decode(event.data).choices
    except msgspec.DecodeError as error:
        raise UpstreamFailed(f"The model's process sent an invalid event: {error}") from error
    for delta in (choice.delta for choice in choices if choice.delta is not None):
        content, reasoning = delta.content or "", delta.reasoning_content or delta.reasoning or ""
        if content or reasoning:
            grow(content, reasoning)
    return any(choice.finish_reason is not None for choice in choices)
