"""A model's status as Socket.IO clients know it, and its changes without repetitions."""

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
    """One of loaded, loading, unloaded and error."""
    return _SHOWN[runtime.status]


class DeduplicatedStatus:
    """Remembers each model's last announced status, because several of our states are one for the clients.

    `ModelRuntimeChanged.previous` cannot tell: its publishers know only their own part of the state before.
    """

    def __init__(self) -> None:
        self._announced: dict[int, str] = {}

    def new_status(self, runtime: ModelRuntime) -> str | None:
        """The status to announce; None when it was announced last."""
        status = shown_status(runtime)
        if status == self._announced.get(runtime.model_id, "unloaded"):
            return None
        self._announced[runtime.model_id] = status
        return status

    def forget(self, model_id: int) -> None:
        """Drop a deleted model."""
        self._announced.pop(model_id, None)
