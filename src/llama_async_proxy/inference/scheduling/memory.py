"""Memory as the scheduler sees it: the estimator's contract, the memory in use, and the limits for the policy."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import zip_longest
from typing import Any, Protocol

from llama_async_proxy.errors import LoadFailed, NotEnoughMemory
from llama_async_proxy.inference.scheduling.policy import UNLIMITED, Capacity, Group, Limits
from llama_async_proxy.records.models import Model
from llama_async_proxy.records.runtime import NO_MEMORY, LaunchSpec, MemoryUse, ModelRuntime
from llama_async_proxy.settings import Settings


class MemoryEstimator(Protocol):
    """Estimates how much memory loads take, and how much the machine has."""

    async def requirement(self, model: Model, spec: LaunchSpec, /) -> MemoryUse:
        """Memory that the load is expected to take; NO_MEMORY when unknown."""

    def capacity(self) -> tuple[Capacity, Capacity]:
        """Memory for all loaded models together, and for one that runs alone. Called at every change of the plan."""

    def shortage(self, model: Model, requirement: MemoryUse, pinned: MemoryUse, /) -> NotEnoughMemory:
        """Error with the numbers, and with settings that would fit beside the memory of pinned models."""

    async def smaller_load(self, model: Model, spec: LaunchSpec, failure: LoadFailed, /) -> LaunchSpec | None:
        """Next smaller load after one that ran out of memory; None for another failure, or when none is left."""


class NoEstimates:
    """Estimator that knows nothing, so that only the number of places counts."""

    async def requirement(self, _model: Model, _spec: LaunchSpec) -> MemoryUse:
        return NO_MEMORY

    def capacity(self) -> tuple[Capacity, Capacity]:
        return UNLIMITED, UNLIMITED

    def shortage(self, model: Model, _requirement: MemoryUse, _pinned: MemoryUse) -> NotEnoughMemory:
        return NotEnoughMemory(f"There is not enough memory for model {model.slug!r}.")

    async def smaller_load(self, _model: Model, _spec: LaunchSpec, _failure: LoadFailed) -> LaunchSpec | None:
        return None


NO_ESTIMATES = NoEstimates()


def memory_in_use(runtime: ModelRuntime | None, estimated: MemoryUse) -> MemoryUse:
    """Memory that a model takes: measured once it is loaded, until then estimated."""
    if runtime is None or runtime.endpoint is None:
        return estimated
    counted = runtime.memory or MemoryUse(0 if runtime.rss_bytes else estimated.host_bytes, estimated.gpu_bytes)
    return MemoryUse(max(counted.host_bytes, runtime.rss_bytes or 0), counted.gpu_bytes, estimated.gpus)


def total_memory(uses: Iterable[MemoryUse]) -> MemoryUse:
    """Sum of the uses, for the host, all GPUs and each GPU."""
    present = tuple(uses)
    return MemoryUse(
        sum(use.host_bytes for use in present),
        sum(use.gpu_bytes for use in present),
        tuple(map(sum, zip_longest(*(use.gpus for use in present), fillvalue=0))),
    )


def groups_from(setting: Mapping[str, Any], models: Iterable[Model]) -> tuple[Group, ...]:
    """Groups of the setting `groups`, with model ids in place of names. Names that no model has are left out."""
    ids = {name.lower(): model.id for model in models for name in (*model.aliases, model.name, model.slug)}
    return tuple(
        Group(frozenset(ids[name.lower()] for name in group["models"] if name.lower() in ids), group["together"])
        for group in setting.values()
    )


def limits_from(settings: Settings, models: Iterable[Model], memory: MemoryEstimator) -> Limits:
    """Limits for the policy, from the settings and the memory of this moment."""
    shared, exclusive = memory.capacity()
    groups = groups_from(settings.groups, models) if settings.groups else ()
    return Limits(settings.max_models, settings.fairness_s, shared, exclusive, groups)
