"""How models run, for everybody to see: what the engine tells of them, and who waits for those that have no place."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Protocol

from llama_async_proxy.events import EventBus, ModelRuntimeChanged
from llama_async_proxy.inference.scheduling.lease import Lease
from llama_async_proxy.inference.scheduling.leases import Leases
from llama_async_proxy.inference.scheduling.policy import Wait
from llama_async_proxy.inference.scheduling.queue import Queue
from llama_async_proxy.records.runtime import ModelRuntime, ModelStatus, QueueState


class Running(Protocol):
    """What an engine tells of its models."""

    def runtime(self, model_id: int) -> ModelRuntime: ...
    def runtimes(self) -> tuple[ModelRuntime, ...]: ...


class ModelStates:
    """The engine's, with the queues. Belongs to the event loop's thread."""

    def __init__(self, engine: Running, queue: Queue[Lease], leases: Leases, bus: EventBus) -> None:
        self.waits: Mapping[int, Wait] = {}
        """Of the latest plan: why each model with a queue waits, next in line first."""
        self.announced: dict[int, ModelRuntime] = {}
        """What was last published of models with a queue."""
        self._engine = engine
        self._queue = queue
        self._leases = leases
        self._bus = bus
        self._epoch_s = time.time() - time.monotonic()

    def of(self, model_id: int) -> ModelRuntime:
        """The engine's, and who waits for the model: QUEUED while it has no process but a queue."""
        runtime = self._engine.runtime(model_id)
        queue = self._queue_state(model_id)
        if queue is None:
            return runtime
        if runtime.status.in_use:
            return replace(runtime, queue=queue)
        return ModelRuntime(model_id, ModelStatus.QUEUED, queue=queue)

    def all(self) -> tuple[ModelRuntime, ...]:
        """Of every model that is not UNLOADED."""
        ids = dict.fromkeys(runtime.model_id for runtime in self._engine.runtimes())
        return tuple(self.of(model_id) for model_id in ids | dict.fromkeys(self._queue))

    def announce(self) -> None:
        """Publish how the queues have changed; what the engine does it publishes itself."""
        current = {model_id: self.of(model_id) for model_id in self._queue}
        for model_id in current.keys() | self.announced.keys():
            runtime = current.get(model_id) or self.of(model_id)
            previous = self.announced.get(model_id)
            if runtime == previous:
                continue
            if model_id not in current and model_id in self._leases and not runtime.status.in_use:
                current[model_id] = self.announced[model_id]  # its load is about to begin
                continue
            self._bus.publish(ModelRuntimeChanged(runtime, previous or self._engine.runtime(model_id)))
        self.announced = current

    def _queue_state(self, model_id: int) -> QueueState | None:
        if model_id not in self._queue or model_id not in self.waits:
            return None
        return QueueState(
            position=1 + list(self.waits).index(model_id),
            requests=self._queue.length(model_id),
            reason=self.waits[model_id].value,
            since_ms=round(1000 * (self._epoch_s + self._queue.since_s(model_id))),
        )
