"""States of models for all readers: the engine's states, combined with the queue for models without a place."""

from __future__ import annotations

import time

from msgspec.structs import replace

from llama_async_proxy.events import EventBus, ModelRuntimeChanged
from llama_async_proxy.inference.scheduling.admission import AdmissionControl
from llama_async_proxy.inference.scheduling.snapshot import RuntimeSource
from llama_async_proxy.records.runtime import ModelRuntime, ModelStatus, QueueState


class ModelStates:
    """Combines the engine's states with the queue. To be used in the event loop's thread only."""

    def __init__(self, engine: RuntimeSource, admission: AdmissionControl, bus: EventBus) -> None:
        self.published: dict[int, ModelRuntime] = {}
        """State last published of each model with a queue, by id."""
        self._engine = engine
        self._admission = admission
        self._bus = bus
        self._epoch_s = time.time() - time.monotonic()

    def of(self, model_id: int) -> ModelRuntime:
        """The engine's state with the model's queue. QUEUED when the model has a queue and no process."""
        runtime = self._engine.runtime(model_id)
        queue = self._queue_state(model_id)
        if queue is None:
            return runtime
        if runtime.status.in_use:
            return replace(runtime, queue=queue)
        return ModelRuntime(model_id, ModelStatus.QUEUED, queue=queue)

    def all(self) -> tuple[ModelRuntime, ...]:
        """States of all models that are not UNLOADED."""
        ids = dict.fromkeys(runtime.model_id for runtime in self._engine.runtimes())
        return tuple(self.of(model_id) for model_id in ids | dict.fromkeys(self._admission.queue))

    def publish_changes(self) -> None:
        """Publish how the queues have changed. The engine publishes its own changes itself."""
        current = {model_id: self.of(model_id) for model_id in self._admission.queue}
        for model_id in current.keys() | self.published.keys():
            runtime = current.get(model_id) or self.of(model_id)
            previous = self.published.get(model_id)
            if runtime == previous:
                continue
            if model_id not in current and model_id in self._admission.leases and not runtime.status.in_use:
                current[model_id] = self.published[model_id]  # The model was admitted, and its load is about to begin.
                continue
            self._bus.publish(ModelRuntimeChanged(runtime, previous or self._engine.runtime(model_id)))
        self.published = current

    def _queue_state(self, model_id: int) -> QueueState | None:
        queue, waits = self._admission.queue, self._admission.plan.waits
        if model_id not in queue or model_id not in waits:
            return None
        return QueueState(
            position=1 + list(waits).index(model_id),
            requests=queue.length(model_id),
            reason=waits[model_id].value,
            since_ms=round(1000 * (self._epoch_s + queue.since_s(model_id))),
        )
