"""Would a model fit? What a load would take, beside what is free and, once it runs, what it really takes."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

from msgspec import Struct, field
from msgspec.structs import replace

from llama_async_proxy.gguf.memory import MemoryBudget, MemoryEstimate
from llama_async_proxy.inference.scheduling.memory import memory_in_use
from llama_async_proxy.inference.scheduling.policy import Capacity
from llama_async_proxy.operations.context import Context
from llama_async_proxy.operations.demand import MemoryRequirement
from llama_async_proxy.operations.memory import budget_of, free_gpu_bytes, gpus_free
from llama_async_proxy.operations.models import ModelRef, ModelView, find, view
from llama_async_proxy.operations.operation import Effect, operation
from llama_async_proxy.records.machine import Sample
from llama_async_proxy.records.options import OptionValue, no_options
from llama_async_proxy.records.runtime import NO_MEMORY, MemoryUse


class Fit(StrEnum):
    YES = "yes"
    AFTER_EVICTIONS = "after_evictions"
    """Once other models have been unloaded; the service does that by itself."""
    HOST_ONLY = "host_only"
    """Not as asked, but without the GPU."""
    TIGHT = "tight"
    """Only in what is not free; the system may have to swap."""
    NO = "no"


class EstimateMemory(Struct, frozen=True):
    id: ModelRef
    options: Mapping[str, OptionValue] = field(default_factory=no_options)
    """Engine options of the load in question, as for LoadModel. Those that do not touch memory are ignored."""


class MemoryReport(Struct, frozen=True):
    model_id: int
    estimate: MemoryEstimate
    use: MemoryUse
    """The same, and what a draft model takes."""
    free_host_bytes: int
    """Available now, and what the model's own process would give back."""
    free_gpu_bytes: int | None
    """Likewise; None without a GPU that tells."""
    fits: Fit
    largest_context: int | None
    """Tokens of all slots together that fit with these layers on the GPU; None when none does."""
    most_gpu_layers: int | None
    """None when the rest does not fit the host."""
    alternatives: tuple[Mapping[str, OptionValue], ...]
    """Options with which it would fit, each set enough by itself; empty when it fits."""
    measured_host_bytes: int | None
    """LoadedModel memory of the model's process; None while there is none."""
    measured_gpu_bytes: int | None
    counted: MemoryUse | None
    """By the engine itself, after the load."""


@operation("models.estimate", Effect.READ)
async def estimate_memory(context: Context, request: EstimateMemory) -> MemoryReport:
    """Raises InvalidInput for an option that llama-server would refuse, NotFound when the file cannot be read."""
    found = view(context, find(context, request.id))
    spec = context.planner.spec(found.model, request.options)
    demand = await context.memory.demand(found.model, spec)
    sample = await context.sampler.now()
    together, alone = context.memory.capacity()
    free = _free(found, sample, has_gpu=alone.gpu_bytes is not None)
    others = [memory_in_use(r, NO_MEMORY) for r in context.engine.runtimes() if r.model_id != found.model.id]
    budget = MemoryBudget(
        _least(free.host_bytes, together.host_bytes, sum(use.host_bytes for use in others)),
        _least(free.gpu_bytes, together.gpu_bytes, sum(use.gpu_bytes for use in others)),
        # Where a loaded model's own GPU memory lies, nobody tells.
        gpus_free(sample) if alone.gpus and not found.runtime.gpu_bytes else (),
    )
    fits = _fit(demand, budget, together, alone)
    room = budget_of(alone) if fits is Fit.NO else budget
    return MemoryReport(
        model_id=found.model.id,
        estimate=demand.estimate(budget),
        use=demand.use(budget),
        free_host_bytes=free.host_bytes or 0,
        free_gpu_bytes=free.gpu_bytes,
        fits=fits,
        largest_context=demand.largest_context(budget),
        most_gpu_layers=demand.most_gpu_layers(budget),
        alternatives=() if fits in (Fit.YES, Fit.AFTER_EVICTIONS) else tuple(demand.alternatives(room)),
        measured_host_bytes=found.runtime.rss_bytes,
        measured_gpu_bytes=found.runtime.gpu_bytes,
        counted=found.runtime.memory,
    )


def _least(free: int | None, limit: int | None, others: int) -> int | None:
    """What is free, and within what models may take together."""
    return free if free is None or limit is None else max(0, min(free, limit - others))


def _fit(demand: MemoryRequirement, budget: MemoryBudget, together: Capacity, alone: Capacity) -> Fit:
    if demand.fits(budget):
        return Fit.YES
    if demand.fits(budget_of(together)):
        return Fit.AFTER_EVICTIONS
    if budget.gpu_bytes is not None and replace(demand, gpu_layers=0).fits(budget):
        return Fit.HOST_ONLY
    return Fit.TIGHT if demand.fits(budget_of(alone)) else Fit.NO


def _free(found: ModelView, sample: Sample, *, has_gpu: bool) -> MemoryBudget:
    host = sample.memory_available_bytes + (found.runtime.rss_bytes or 0)
    gpu = free_gpu_bytes(replace(sample, models_gpu_bytes=found.runtime.gpu_bytes or 0)) if has_gpu else None
    return MemoryBudget(min(host, sample.memory_total_bytes), gpu)
