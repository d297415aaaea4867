"""Snapshot of the loaded models for the policy, and the contracts of the parts that it is made from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

from msgspec import Struct

from llama_async_proxy.inference.scheduling import policy
from llama_async_proxy.inference.scheduling.leases import Leases
from llama_async_proxy.inference.scheduling.memory import NO_ESTIMATES, MemoryEstimator, limits_from, memory_in_use
from llama_async_proxy.records.models import IDLE_TTL, Model
from llama_async_proxy.records.options import OptionValue
from llama_async_proxy.records.runtime import NO_MEMORY, LaunchSpec, MemoryUse, ModelRuntime, ModelStatus
from llama_async_proxy.settings import Settings

ANSWERING = (ModelStatus.READY, ModelStatus.SLEEPING)


class RuntimeSource(Protocol):
    """Part of an engine that reports the state of its models."""

    def runtime(self, model_id: int) -> ModelRuntime: ...
    def runtimes(self) -> tuple[ModelRuntime, ...]: ...


class SchedulerContext(Struct, frozen=True, kw_only=True):
    """Everything that the scheduler gets from other rooms, apart from the engine and the event bus."""

    settings: Callable[[], Settings]
    models: Callable[[], tuple[Model, ...]]
    spec_for: Callable[[Model, Mapping[str, OptionValue]], LaunchSpec]
    on_use: Callable[[int, int], None]
    """Receives model id and milliseconds since the epoch whenever a request gets its model."""
    memory: MemoryEstimator = NO_ESTIMATES

    def limits(self) -> policy.Limits:
        """Limits of this moment."""
        return limits_from(self.settings(), self.models(), self.memory)


class LoadedModels:
    """Models that have a process or are about to get one. To be used in the event loop's thread only."""

    def __init__(self, engine: RuntimeSource, leases: Leases, context: SchedulerContext) -> None:
        self.unloading: set[int] = set()
        """Ids of the models being unloaded: no new request may join them."""
        self.estimated: dict[int, MemoryUse] = {}
        """Memory estimates of the models that have a place, by id."""
        self._engine = engine
        self._leases = leases
        self._context = context
        self._ready_since_s: dict[int, float] = {}

    def __contains__(self, model_id: int) -> bool:
        return model_id in self._leases or self._engine.runtime(model_id).status.in_use

    def forget(self, model_id: int) -> None:
        """Drop everything known of a model that was unloaded."""
        self.unloading.discard(model_id)
        self.estimated.pop(model_id, None)
        self._leases.forget_use(model_id)

    def snapshot(self, now_s: float) -> tuple[policy.LoadedModel, ...]:
        """All loaded models at `now_s` of the monotonic clock. A model's turn begins when it is first seen ready."""
        runtimes = {runtime.model_id: runtime for runtime in self._engine.runtimes() if runtime.status.in_use}
        statuses = {model_id: runtime.status for model_id, runtime in runtimes.items()}
        self._ready_since_s = {
            model_id: self._ready_since_s.get(model_id, now_s)
            for model_id, status in statuses.items()
            if status in ANSWERING
        }
        models = {m.id: m for m in self._context.models() if m.is_pinned or IDLE_TTL in m.options}
        return tuple(
            policy.LoadedModel(
                model_id,
                self._leases.last_used_s(model_id, now_s),
                self._ready_since_s.get(model_id),
                # A model that loads counts as busy: a load is never broken off to make room.
                busy=model_id in self._leases or statuses.get(model_id) not in ANSWERING,
                pinned=model_id in models and models[model_id].is_pinned,
                unloading=model_id in self.unloading,
                memory=memory_in_use(runtimes.get(model_id), self.estimated.get(model_id, NO_MEMORY)),
                idle_ttl_s=self._idle_ttl_s(models.get(model_id)),
            )
            for model_id in statuses.keys() | self._leases
        )

    def expired(self, now_s: float) -> tuple[int, ...]:
        """Ids of the models that have been idle for their time to live."""
        return policy.expired(self.snapshot(now_s), now_s)

    def _idle_ttl_s(self, model: Model | None) -> float:
        own = None if model is None else model.options.get(IDLE_TTL)
        return float(own) if isinstance(own, int | float) else self._context.settings().idle_ttl_s
