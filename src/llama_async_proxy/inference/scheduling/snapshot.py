"""The models that have a process or are about to, as `policy` looks at them."""

from __future__ import annotations

from collections.abc import Callable

from llama_async_proxy.inference.scheduling.leases import Leases
from llama_async_proxy.inference.scheduling.memory import taken
from llama_async_proxy.inference.scheduling.model_states import Running
from llama_async_proxy.inference.scheduling.policy import LoadedModel
from llama_async_proxy.records.models import IDLE_TTL, Model
from llama_async_proxy.records.runtime import NO_MEMORY, MemoryUse, ModelStatus
from llama_async_proxy.settings import Settings

ANSWERING = (ModelStatus.READY, ModelStatus.SLEEPING)


class LoadedModels:
    """What the engine tells of them, who uses them, and what was foretold. Belongs to the event loop's thread."""

    def __init__(
        self,
        engine: Running,
        leases: Leases,
        *,
        settings: Callable[[], Settings],
        models: Callable[[], tuple[Model, ...]],
    ) -> None:
        self.leaving: set[int] = set()
        """Being unloaded: nobody new may join them."""
        self.foretold: dict[int, MemoryUse] = {}
        """What the loads of models that have their place are expected to take."""
        self._engine = engine
        self._leases = leases
        self._settings = settings
        self._models = models
        self._turns: dict[int, float] = {}
        """Since when each model answers."""

    def __contains__(self, model_id: int) -> bool:
        return model_id in self._leases or self._engine.runtime(model_id).status.in_use

    def forget(self, model_id: int) -> None:
        """It was unloaded."""
        self.leaving.discard(model_id)
        self.foretold.pop(model_id, None)
        self._leases.forget_use(model_id)

    def at(self, now_s: float) -> tuple[LoadedModel, ...]:
        """All of them, at this moment of the monotonic clock. A model's turn begins when it is first seen answering."""
        runtimes = {runtime.model_id: runtime for runtime in self._engine.runtimes() if runtime.status.in_use}
        statuses = {model_id: runtime.status for model_id, runtime in runtimes.items()}
        self._turns = {
            model_id: self._turns.get(model_id, now_s) for model_id, status in statuses.items() if status in ANSWERING
        }
        models = {model.id: model for model in self._models() if model.is_pinned or IDLE_TTL in model.options}
        return tuple(
            LoadedModel(
                model_id,
                self._leases.last_used_s(model_id, now_s),
                self._turns.get(model_id),
                # A load is never broken off to make room.
                busy=model_id in self._leases or statuses.get(model_id) not in ANSWERING,
                pinned=model_id in models and models[model_id].is_pinned,
                leaving=model_id in self.leaving,
                memory=taken(runtimes.get(model_id), self.foretold.get(model_id, NO_MEMORY)),
                idle_ttl_s=self._idle_ttl_s(models.get(model_id)),
            )
            for model_id in statuses.keys() | self._leases
        )

    def _idle_ttl_s(self, model: Model | None) -> float:
        own = None if model is None else model.options.get(IDLE_TTL)
        return float(own) if isinstance(own, int | float) else self._settings().idle_ttl_s
