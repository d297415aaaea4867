"""Counters and gauges of the whole service at one moment, as monitoring systems collect them."""

from __future__ import annotations

from msgspec import Struct

from llama_async_proxy.operations.context import Context
from llama_async_proxy.operations.operation import Effect, operation
from llama_async_proxy.records.engine import EngineState
from llama_async_proxy.records.machine import RequestCounters, Sample
from llama_async_proxy.records.models import Model
from llama_async_proxy.records.runtime import ModelRuntime, ModelStatus


class GetCounters(Struct, frozen=True):
    pass


class EndedRequests(Struct, frozen=True):
    model: str
    """Slug of the model, or "other" for names that no model has."""
    status: int
    """HTTP status of the answers."""
    count: int


class ModelTotals(Struct, frozen=True):
    """Sums over the inference requests to one model that have ended since the service started."""

    model: str
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    duration_ms: int


class ModelGauges(Struct, frozen=True):
    """A model that the engine has heard of since the service started."""

    model: str
    runtime: ModelRuntime
    gpu_bytes: int | None
    """GPU memory of the model's process; None while no driver tells."""
    in_flight: int
    """Requests that run on the model or wait for its load."""


class StatusCount(Struct, frozen=True):
    status: ModelStatus
    models: int


class ServiceCounters(Struct, frozen=True):
    started_at_ms: int
    engine: EngineState
    http: RequestCounters
    inference_in_flight: int
    ended: tuple[EndedRequests, ...]
    totals: tuple[ModelTotals, ...]
    models: tuple[ModelGauges, ...]
    statuses: tuple[StatusCount, ...]
    """Every status with the number of registered models that have it."""
    sample: Sample


@operation("metrics.counters", Effect.READ)
async def get_counters(context: Context, _: GetCounters) -> ServiceCounters:
    """Requests that ended up to this moment are counted."""
    context.in_flight.record()
    models = {model.id: model for model in context.store.models.all()}
    gauges = tuple(
        _gauges(context, models[runtime.model_id], runtime)
        for runtime in context.scheduler.runtimes()
        if runtime.model_id in models
    )
    return ServiceCounters(
        started_at_ms=context.started_at_ms,
        engine=context.engine.state,
        http=context.requests.snapshot(),
        inference_in_flight=len(context.in_flight.all()),
        ended=tuple(EndedRequests(*key, count) for key, count in context.totals.requests.items()),
        totals=_totals(context),
        models=gauges,
        statuses=_statuses(gauges, registered=len(models)),
        sample=await context.sampler.now(),
    )


def _gauges(context: Context, model: Model, runtime: ModelRuntime) -> ModelGauges:
    gpu_bytes = None if runtime.pid is None else context.sampler.gpu_bytes(runtime.pid)
    return ModelGauges(model.slug, runtime, gpu_bytes, context.scheduler.in_flight(model.id))


def _totals(context: Context) -> tuple[ModelTotals, ...]:
    totals = context.totals
    return tuple(
        ModelTotals(
            model=model,
            prompt_tokens=totals.prompt_tokens[model],
            cached_tokens=totals.cached_tokens[model],
            completion_tokens=totals.completion_tokens[model],
            duration_ms=totals.duration_ms[model],
        )
        for model in totals.prompt_tokens
    )


def _statuses(gauges: tuple[ModelGauges, ...], *, registered: int) -> tuple[StatusCount, ...]:
    """Models that the engine has not heard of count as unloaded."""
    counts = {status: sum(gauge.runtime.status is status for gauge in gauges) for status in ModelStatus}
    counts[ModelStatus.UNLOADED] += registered - len(gauges)
    return tuple(StatusCount(status, count) for status, count in counts.items())
