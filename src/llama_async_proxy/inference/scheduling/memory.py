"""What scheduler asks about memory, and what it makes of the settings and of what the engine tells."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import zip_longest
from typing import Any, Protocol

from llama_async_proxy.errors import LoadFailed, NotEnoughMemory
from llama_async_proxy.inference.scheduling.policy import UNLIMITED, Capacity, Group, Limits
from llama_async_proxy.records.models import Model
from llama_async_proxy.records.runtime import NO_MEMORY, LaunchSpec, MemoryUse, ModelRuntime
from llama_async_proxy.settings import Settings


class Memory(Protocol):
    """Knows what loads take, and what the machine has."""

    async def need(self, model: Model, spec: LaunchSpec, /) -> MemoryUse:
        """What the load is expected to take; NO_MEMORY where nobody can tell."""

    def capacity(self) -> tuple[Capacity, Capacity]:
        """What loaded models may take together, and what one may take that is alone. Asked at every change."""

    def refusal(self, model: Model, need: MemoryUse, pinned: MemoryUse, /) -> NotEnoughMemory:
        """The numbers, and the settings that would fit beside what pinned models take."""

    async def smaller(self, model: Model, spec: LaunchSpec, failure: LoadFailed, /) -> LaunchSpec | None:
        """The next smaller load when this one ran out of memory; None for another failure, or when none is left."""


class UnknownMemory:
    """Nobody can tell: only places count."""

    async def need(self, _model: Model, _spec: LaunchSpec) -> MemoryUse:
        return NO_MEMORY

    def capacity(self) -> tuple[Capacity, Capacity]:
        return UNLIMITED, UNLIMITED

    def refusal(self, model: Model, _need: MemoryUse, _pinned: MemoryUse) -> NotEnoughMemory:
        return NotEnoughMemory(f"There is not enough memory for model {model.slug!r}.")

    async def smaller(self, _model: Model, _spec: LaunchSpec, _failure: LoadFailed) -> LaunchSpec | None:
        return None


UNKNOWN_MEMORY = UnknownMemory()


def taken(runtime: ModelRuntime | None, foretold: MemoryUse) -> MemoryUse:
    """What a model takes: as measured once it is loaded, until then as foretold."""
    if runtime is None or runtime.endpoint is None:
        return foretold
    counted = runtime.memory or MemoryUse(0 if runtime.rss_bytes else foretold.host_bytes, foretold.gpu_bytes)
    return MemoryUse(max(counted.host_bytes, runtime.rss_bytes or 0), counted.gpu_bytes, foretold.gpus)


def together(uses: Iterable[MemoryUse]) -> MemoryUse:
    """What they take, all in all."""
    present = tuple(uses)
    return MemoryUse(
        sum(use.host_bytes for use in present),
        sum(use.gpu_bytes for use in present),
        tuple(map(sum, zip_longest(*(use.gpus for use in present), fillvalue=0))),
    )


def groups_of(setting: Mapping[str, Any], models: Iterable[Model]) -> tuple[Group, ...]:
    """The setting `groups` with ids for names; a name that no model has stands for none."""
    ids = {name.lower(): model.id for model in models for name in (*model.aliases, model.name, model.slug)}
    return tuple(
        Group(frozenset(ids[name.lower()] for name in group["models"] if name.lower() in ids), group["together"])
        for group in setting.values()
    )


def limits_of(settings: Settings, models: Iterable[Model], memory: Memory) -> Limits:
    """What `policy` has to keep to, now."""
    beside, alone = memory.capacity()
    groups = groups_of(settings.groups, models) if settings.groups else ()
    return Limits(settings.max_models, settings.fairness_s, beside, alone, groups)
