"""What was used: by model and by day, from the records of the requests."""

from __future__ import annotations

from msgspec import Struct

from llama_async_proxy.errors import InvalidInput
from llama_async_proxy.operations.context import Context
from llama_async_proxy.operations.operation import Effect, operation
from llama_async_proxy.store.requests import DayTotals

_DAY_MS = 86_400_000
MOST_DAYS = 366


class GetUsage(Struct, frozen=True):
    days: int = 30
    """Up to today, in UTC."""


class Usage(Struct, frozen=True):
    days: int
    totals: tuple[DayTotals, ...]
    """By day, newest first, and by model, the busiest first."""


@operation("usage.get", Effect.READ)
async def get_usage(context: Context, request: GetUsage) -> Usage:
    if not 1 <= request.days <= MOST_DAYS:
        raise InvalidInput("days", f"must be between 1 and {MOST_DAYS}, not {request.days}")
    today = context.now_ms() // _DAY_MS
    since_ms = (today - request.days + 1) * _DAY_MS
    return Usage(request.days, await context.store.requests.by_day(since_ms=since_ms))
