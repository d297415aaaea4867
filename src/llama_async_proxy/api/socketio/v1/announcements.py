"""Events of the service as broadcasts of Socket.IO v1."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from typing import TypeAlias

import msgspec
import msgspec.structs

from llama_async_proxy.api.socketio.contract import ServerEvent
from llama_async_proxy.api.socketio.model_status import DeduplicatedStatus
from llama_async_proxy.api.socketio.v1 import engine, models
from llama_async_proxy.errors import NotFound
from llama_async_proxy.events import (
    EngineChanged,
    Event,
    ModelCreated,
    ModelDeleted,
    ModelRuntimeChanged,
    ModelUpdated,
    ScanFinished,
    ScanProgressed,
)
from llama_async_proxy.operations import engine as engine_operations
from llama_async_proxy.operations import models as model_operations
from llama_async_proxy.operations.context import Context
from llama_async_proxy.records.engine import EngineEventType
from llama_async_proxy.records.runtime import ModelRuntime

ANNOUNCED = (
    ModelCreated,
    ModelUpdated,
    ModelDeleted,
    ModelRuntimeChanged,
    EngineChanged,
    ScanFinished,
    ScanProgressed,
)
_PROGRESS_MS = 500
"""Least time between two reports of a scan's progress: a scan reads thousands of files a second."""

Announcement: TypeAlias = tuple[ServerEvent, msgspec.Struct]


class Announcer:
    """Turns an event of the service into the broadcasts that tell clients of it, each fact once."""

    def __init__(self, context: Callable[[], Context]) -> None:
        self._context = context
        self._statuses = DeduplicatedStatus()
        self._next_progress_ms = 0

    async def announcements(self, event: Event) -> AsyncIterator[Announcement]:
        """The broadcasts for one event of a type in ANNOUNCED, in their order."""
        match event:
            case ModelCreated(model):
                yield models.CREATED, models.one_model(model_operations.view(self._context(), model))
            case ModelUpdated(model):
                yield models.UPDATED, models.one_model(model_operations.view(self._context(), model))
            case ModelDeleted(model):
                self._statuses.forget(model.id)
                yield models.DELETED, models.DeletionNotice(model.id, model.name)
            case ModelRuntimeChanged(runtime):
                if state := await self._new_state(runtime):
                    yield models.STATUS, state
            case ScanFinished(scanned, updated, total, failed):
                yield models.SCANNED, models.ScanCounts(scanned, updated, total, failed)
            case ScanProgressed(done, total):
                if self._progress_is_due():
                    yield models.SCAN_PROGRESS, models.ScanProgress(done, total)
            case EngineChanged():
                for announcement in _engine_announcements(self._context(), event):
                    yield announcement

    async def _new_state(self, runtime: ModelRuntime) -> models.ModelState | None:
        """The model's state; None when clients know it, or the model was deleted meanwhile."""
        status = self._statuses.new_status(runtime)
        if status is None:
            return None
        try:
            view = await model_operations.get_model(self._context(), model_operations.GetModel(runtime.model_id))
        except NotFound:
            return None
        return models.ModelState(view.model.name, status, runtime.error)

    def _progress_is_due(self) -> bool:
        now_ms = self._context().now_ms()
        is_due = now_ms >= self._next_progress_ms
        if is_due:
            self._next_progress_ms = now_ms + _PROGRESS_MS
        return is_due


def _engine_announcements(context: Context, event: EngineChanged) -> Iterator[Announcement]:
    state = engine.engine(msgspec.structs.replace(engine_operations.view(context), state=event.state))
    shown = msgspec.structs.replace(state, error=event.error or state.error)
    yield engine.SERVER_EVENT, engine.EngineNotice(event.type, shown)
    if event.model_id is None and event.type is not EngineEventType.CLOSED:
        yield engine.STATUS, state
    if event.type is EngineEventType.STOPPED:
        yield engine.ROUTER_STOPPED, engine.RouterStopped("stopped")
