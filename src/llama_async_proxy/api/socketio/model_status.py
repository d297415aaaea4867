"""Changes of a model's status as clients know it, each told once."""

from __future__ import annotations

from llama_async_proxy.records.runtime import ModelRuntime, ModelStatus

_SHOWN = {
    ModelStatus.UNLOADED: "unloaded",
    ModelStatus.QUEUED: "loading",
    ModelStatus.LOADING: "loading",
    ModelStatus.READY: "loaded",
    ModelStatus.SLEEPING: "loaded",
    ModelStatus.STOPPING: "loaded",
    ModelStatus.FAILED: "error",
}


def shown_status(runtime: ModelRuntime) -> str:
    """loaded, loading, unloaded or error."""
    return _SHOWN[runtime.status]


class DeduplicatedStatus:
    """Remembers what was told: several of our own states are one for the clients, and who publishes a change knows
    only its own part of what was before.
    """

    def __init__(self) -> None:
        self._told: dict[int, str] = {}

    def new_status(self, runtime: ModelRuntime) -> str | None:
        """The status to tell; None when it is the one told last."""
        status = shown_status(runtime)
        if status == self._told.get(runtime.model_id, "unloaded"):
            return None
        self._told[runtime.model_id] = status
        return status

    def forget(self, model_id: int) -> None:
        self._told.pop(model_id, None)
