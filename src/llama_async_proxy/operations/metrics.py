"""The machine now and before."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

from msgspec import Struct

from llama_async_proxy.errors import InvalidInput
from llama_async_proxy.operations.context import Context
from llama_async_proxy.operations.operation import Effect, operation
from llama_async_proxy.records.machine import HistoryPoint, Sample

RESOLUTIONS_S = {"1m": 60, "5m": 300, "15m": 900, "1h": 3600}


class GetMetrics(Struct, frozen=True):
    pass


class Metrics(Struct, frozen=True):
    sample: Sample
    models_registered: int


class GetSamples(Struct, frozen=True):
    """Stored samples, newest first; times in ms since the epoch, both inclusive."""

    limit: int = 100
    start_ms: int | None = None
    end_ms: int | None = None


class Samples(Struct, frozen=True):
    samples: tuple[Sample, ...]


class GetHistory(Struct, frozen=True):
    hours: float = 24
    resolution: str = "5m"


class History(Struct, frozen=True):
    start_ms: int
    end_ms: int
    resolution: str
    points: tuple[HistoryPoint, ...]
    """Oldest first; buckets without samples are absent."""


_MOST_SAMPLES = 2000


@operation("metrics.get", Effect.READ)
async def get_metrics(context: Context, _: GetMetrics) -> Metrics:
    return Metrics(await context.sampler.now(), len(context.store.models.all()))


def watch_metrics(context: Context, interval_s: Callable[[], float] | None = None) -> AbstractContextManager[None]:
    """Have SampleTaken published every `interval_s()` seconds at least while the context manager is entered.

    The default is the setting sample_watched_s.
    """
    return context.sampler.watch(interval_s)


@operation("metrics.samples", Effect.READ)
async def get_samples(context: Context, request: GetSamples) -> Samples:
    if not 1 <= request.limit <= _MOST_SAMPLES:
        raise InvalidInput("limit", f"must be between 1 and {_MOST_SAMPLES}")
    return Samples(
        await context.store.metrics.recent(limit=request.limit, start_ms=request.start_ms, end_ms=request.end_ms)
    )


@operation("metrics.history", Effect.READ)
async def get_history(context: Context, request: GetHistory) -> History:
    if not 1 <= request.hours <= 168:
        raise InvalidInput("hours", f"must be between 1 and 168, not {request.hours:g}")
    if request.resolution not in RESOLUTIONS_S:
        raise InvalidInput("resolution", f"must be one of {', '.join(RESOLUTIONS_S)}, not {request.resolution!r}")
    end_ms = context.now_ms()
    start_ms = end_ms - int(request.hours * 3_600_000)
    points = await context.store.metrics.history(start_ms, end_ms, resolution_s=RESOLUTIONS_S[request.resolution])
    return History(start_ms, end_ms, request.resolution, points)
