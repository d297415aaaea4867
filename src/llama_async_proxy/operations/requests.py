"""The inference requests: which run, which have ended, and ending one."""

from __future__ import annotations

from contextlib import AbstractContextManager

from msgspec import Struct

from llama_async_proxy.errors import InvalidInput
from llama_async_proxy.operations.context import Context
from llama_async_proxy.operations.operation import Effect, operation
from llama_async_proxy.records.requests import LiveRequest, RequestRecord

MOST_RECENT = 1000


class ListRequests(Struct, frozen=True):
    limit: int = 100
    """Of those that have ended: 0 to 1000."""
    model: str | None = None
    """Only requests to the model with this slug."""


class RequestList(Struct, frozen=True):
    live: tuple[LiveRequest, ...]
    recent: tuple[RequestRecord, ...]
    """Both newest first."""


class CancelRequest(Struct, frozen=True):
    id: str


class CancelledRequests(Struct, frozen=True):
    requests: tuple[LiveRequest, ...]
    """As they were at that moment; several when clients gave them the same id."""


@operation("requests.list", Effect.READ)
async def list_requests(context: Context, request: ListRequests) -> RequestList:
    """Raises InvalidInput for a limit out of range, StoreUnavailable when those that have ended cannot be read."""
    if not 0 <= request.limit <= MOST_RECENT:
        raise InvalidInput("limit", f"must be a number from 0 to {MOST_RECENT}, not {request.limit}")
    live = tuple(one for one in context.in_flight.all() if request.model in (None, one.model))
    return RequestList(live, await _recent(context, request) if request.limit else ())


async def _recent(context: Context, request: ListRequests) -> tuple[RequestRecord, ...]:
    """With what ended just now."""
    context.in_flight.record()
    await context.store.catch_up()
    return await context.store.requests.recent(limit=request.limit, model=request.model)


def watch_requests(context: Context) -> AbstractContextManager[None]:
    """Have RequestsProgressed published while the context manager is entered."""
    return context.in_flight.watch()


@operation("requests.cancel", Effect.MANAGE)
async def cancel_request(context: Context, request: CancelRequest) -> CancelledRequests:
    """Raises NotFound when no such request is running."""
    return CancelledRequests(context.in_flight.cancel(request.id))
