"""Socket.IO v1: enveloped requests on namespace `/`, answered by acknowledgement or `<event>:result`, and broadcasts.

Each event is one row of EVENTS: how its payload reads, which operation it is, how the answer is written.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import msgspec

from llama_async_proxy.doors import socket_v1_wire as wire
from llama_async_proxy.doors.outlet import TOO_LARGE, Outlet
from llama_async_proxy.doors.payloads import decode
from llama_async_proxy.errors import InvalidInput, NotFound, ServiceError
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
from llama_async_proxy.operations import table
from llama_async_proxy.operations.config import GetConfig
from llama_async_proxy.operations.engine import GetEngine, RestartEngine, StartEngine, StopEngine
from llama_async_proxy.operations.metrics import GetMetrics
from llama_async_proxy.operations.models import CleanUpModels, ListModels, ScanModels
from llama_async_proxy.operations.services import Services
from llama_async_proxy.operations.table import Operation
from llama_async_proxy.records import EngineEventType

logger = logging.getLogger(__name__)

Payload = TypeVar("Payload")
Input = TypeVar("Input")
Output = TypeVar("Output")
Envelope = dict[str, object]

_VERSION = "1.0"
_ESTABLISHED = "connection:established"
_NAME_SHOWN = 100
"""Characters of an unknown event's name that are repeated to its sender."""
_MOST_WAITING = 10_000
"""A first scan of a large directory announces each model at once."""

_PROGRESS_MS = 500
"""A scan reads thousands of files a second; nobody wants to hear of each."""


@dataclass(frozen=True, slots=True)
class _Row(Generic[Payload, Input, Output]):
    event: str
    payload: type[Payload]
    read: Callable[[Payload], Input]
    operation: Operation[Input, Output]
    render: Callable[[Output], msgspec.Struct]
    failure: str | None = None
    """The error code of what goes wrong in the operation; None: the error's own."""
    not_found: str | None = None
    """The code for an unknown id where it is not `failure`."""
    answers_as: str = ""
    """The event whose result this one answers on, if not its own."""
    spelling: Mapping[str, str] = field(default_factory=dict)
    """What the operation calls a field -> what the client did."""

    @property
    def result(self) -> str:
        return f"{self.answers_as or self.event}:result"

    async def run(self, services: Services, request: Input) -> object:
        return msgspec.to_builtins(self.render(await self.operation.run(services, request)))

    def code(self, error: ServiceError) -> str:
        """The error code for what the operation raised."""
        if isinstance(error, NotFound):
            return self.not_found or self.failure or "NOT_FOUND"
        if isinstance(error, InvalidInput):
            return self.failure or "INVALID_REQUEST"
        return error.socket_code or self.failure or "INTERNAL_ERROR"


def _nothing(request: Callable[[], Input]) -> Callable[[wire.Nothing], Input]:
    return lambda _: request()


_ROWS: tuple[_Row[Any, Any, Any], ...] = (
    _Row("models:list", wire.Nothing, _nothing(ListModels), table.MODELS_LIST, wire.all_models, "LIST_MODELS_FAILED"),
    _Row("models:get", wire.ById, wire.get_model, table.MODELS_GET, wire.one_model, "GET_MODEL_FAILED"),
    _Row(
        "models:create", wire.Creation, wire.create_models, table.MODELS_CREATE, wire.created_model,
        "CREATE_MODEL_FAILED", spelling=wire.CREATION_FIELDS,
    ),
    _Row(
        "models:update", wire.Update, wire.update_model, table.MODELS_UPDATE, wire.one_model,
        "UPDATE_MODEL_FAILED", not_found="NOT_FOUND", spelling=wire.UPDATE_FIELDS,
    ),
    _Row("models:delete", wire.ById, wire.delete_model, table.MODELS_DELETE, wire.deletion, "DELETE_MODEL_FAILED"),
    _Row(
        "models:toggle-favorite", wire.Favorite, wire.set_favorite, table.MODELS_UPDATE, wire.one_model,
        not_found="NOT_FOUND",
    ),
    _Row("models:load", wire.LoadByName, wire.load_model, table.MODELS_LOAD, wire.model_state, "LOAD_MODEL_FAILED"),
    _Row("models:unload", wire.ByName, wire.unload_model, table.MODELS_UNLOAD, wire.model_state, "UNLOAD_MODEL_FAILED"),
    _Row("models:scan", wire.Nothing, _nothing(ScanModels), table.MODELS_SCAN, wire.scan_counts, "SCAN_MODELS_FAILED"),
    _Row("models:cleanup", wire.Nothing, _nothing(CleanUpModels), table.MODELS_CLEANUP, wire.clean_up),
    _Row("metrics:get", wire.Nothing, _nothing(GetMetrics), table.METRICS_GET, wire.current_metrics),
    _Row("metrics:history", wire.History, wire.get_samples, table.METRICS_SAMPLES, wire.metrics_history),
    _Row("config:get", wire.Nothing, _nothing(GetConfig), table.CONFIG_GET, wire.configuration),
    _Row(
        "config:update", wire.Changes, wire.update_config, table.CONFIG_UPDATE, wire.configuration_update,
        "CONFIG_UPDATE_FAILED",
    ),
    _Row("llama:status", wire.Nothing, _nothing(GetEngine), table.ENGINE_GET, wire.engine),
    _Row(
        "llama:start", wire.Nothing, _nothing(StartEngine), table.ENGINE_START, wire.engine_started,
        "START_LLAMA_FAILED",
    ),
    _Row("llama:stop", wire.Nothing, _nothing(StopEngine), table.ENGINE_STOP, wire.engine, "STOP_LLAMA_FAILED"),
    _Row(
        "llama:restart", wire.Nothing, _nothing(RestartEngine), table.ENGINE_RESTART, wire.engine_started,
        "START_LLAMA_FAILED", answers_as="llama:start",
    ),
)  # fmt: skip
EVENTS: Mapping[str, _Row[Any, Any, Any]] = {row.event: row for row in _ROWS}


class SocketV1:
    def __init__(self, services: Callable[[], Services], outlet: Outlet) -> None:
        self._services = services
        self._outlet = outlet
        self._clients: set[str] = set()
        self._first_client = asyncio.Event()
        self._next_progress_ms = 0

    def connected(self, client: str) -> None:
        self._clients.add(client)
        self._first_client.set()

    def disconnected(self, client: str) -> None:
        self._clients.discard(client)

    # --- requests -----------------------------------------------------------------------------------------------------

    async def answer(self, client: str, event: object, payload: object, *, acknowledged: bool) -> object:
        """The envelope for the acknowledgement; without one it goes to the client as an event of its own."""
        envelope = await self._respond(client, event, payload)
        if event == "connection:ack":
            established = {"clientId": client, "timestamp": self._services().now_ms()}
            await self._outlet.send(client, _ESTABLISHED, self._broadcast_envelope(_ESTABLISHED, established))
        elif not acknowledged:
            await self._outlet.send(client, str(envelope["event"]), envelope)
        return envelope

    async def _respond(self, client: str, event: object, payload: object) -> Envelope:
        request_id = _request_id(payload)
        row = EVENTS.get(event) if isinstance(event, str) else None
        result = row.result if row else f"{str(event)[:_NAME_SHOWN]}:result"
        try:
            data = _open(payload)
            if event == "connection:ack":
                return self._success(result, request_id, {"clientId": client})
            if row is None:
                raise InvalidInput("event", f"{str(event)[:_NAME_SHOWN]!r} is not an event of this API")
            request = row.read(decode(data, row.payload))
        except InvalidInput as error:
            return self._failure(result, request_id, "INVALID_REQUEST", error)
        try:
            return self._success(result, request_id, await row.run(self._services(), request))
        except ServiceError as error:
            return self._failure(result, request_id, row.code(error), _respelled(error, row.spelling))
        except Exception:  # the door's boundary: whatever it was, the caller gets an answer and the log the trace
            trace_id = uuid.uuid4().hex[:12]
            logger.exception("%s failed unexpectedly, trace %s", row.event, trace_id)
            fault = ServiceError(f"Something failed that should not have; see trace {trace_id} in the service's log.")
            return self._failure(result, request_id, row.failure or "INTERNAL_ERROR", fault)

    def _success(self, result: str, request_id: object, data: object) -> Envelope:
        return self._envelope(result, request_id, success=True, data=data, error=None)

    def _failure(self, result: str, request_id: object, code: str, error: ServiceError) -> Envelope:
        details = {"details": error.details} if error.details else {}
        shown = {"code": code, "message": error.message, **details}
        return self._envelope(result, request_id, success=False, data=None, error=shown)

    def _envelope(self, result: str, request_id: object, **content: object) -> Envelope:
        return {
            "type": "response",
            "event": result,
            **content,
            "requestId": request_id,
            "timestamp": self._services().now_ms(),
            "version": _VERSION,
        }

    # --- broadcasts ---------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._announce())
            tasks.create_task(self._send_metrics())

    async def _announce(self) -> None:
        kinds = (
            ModelCreated,
            ModelUpdated,
            ModelDeleted,
            ModelRuntimeChanged,
            EngineChanged,
            ScanFinished,
            ScanProgressed,
        )
        with self._services().bus.subscribe(*kinds, limit=_MOST_WAITING) as events:
            async for event in events:
                if isinstance(event, ScanProgressed) and not self._progress_due():
                    continue
                for name, data in _announcements(self._services(), event):
                    await self._broadcast(name, data)

    def _progress_due(self) -> bool:
        now_ms = self._services().now_ms()
        due = now_ms >= self._next_progress_ms
        if due:
            self._next_progress_ms = now_ms + _PROGRESS_MS
        return due

    async def _send_metrics(self) -> None:
        while True:
            await self._metrics_due()
            if self._clients:
                metrics = await table.METRICS_GET.run(self._services(), GetMetrics())
                await self._broadcast("metrics:update", wire.current_metrics(metrics))

    async def _metrics_due(self) -> None:
        """Without clients the pause is longer, but it ends for the first one that comes."""
        settings = self._services().configuration.settings
        self._first_client.clear()
        if not self._clients:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(settings.metrics_broadcast_idle_s):
                    await self._first_client.wait()
        if self._clients:
            await asyncio.sleep(settings.metrics_broadcast_s)

    async def _broadcast(self, event: str, data: msgspec.Struct) -> None:
        await self._outlet.broadcast(event, self._broadcast_envelope(event, msgspec.to_builtins(data)))

    def _broadcast_envelope(self, event: str, data: object) -> Envelope:
        return {"type": "broadcast", "event": event, "data": data, "timestamp": self._services().now_ms()}


def _announcements(services: Services, event: Event) -> Iterator[tuple[str, msgspec.Struct]]:
    """What clients are told of an event: (name, data)."""
    match event:
        case ModelCreated(model):
            yield "models:created", wire.one_model(model_operations.view(services, model))
        case ModelUpdated(model):
            yield "models:updated", wire.one_model(model_operations.view(services, model))
        case ModelDeleted(model):
            yield "models:deleted", wire.DeletionNotice(model.id, model.name)
        case ModelRuntimeChanged(runtime, previous) if wire.status(runtime) != wire.status(previous):
            with contextlib.suppress(NotFound):  # deleted in between
                model = services.store.models.get(runtime.model_id)
                yield "models:status", wire.ModelState(model.name, wire.status(runtime), runtime.error)
        case ScanFinished(scanned, updated, total, failed):
            yield "models:scanned", wire.ScanCounts(scanned, updated, total, failed)
        case ScanProgressed(done, total):
            yield "models:scan-progress", wire.ScanProgress(done, total)
        case EngineChanged():
            yield from _engine_announcements(services, event)


def _engine_announcements(services: Services, event: EngineChanged) -> Iterator[tuple[str, msgspec.Struct]]:
    state = wire.engine(dataclasses.replace(engine_operations.view(services), state=event.state))
    shown = msgspec.structs.replace(state, error=event.error or state.error)
    yield "llama:server-event", wire.EngineNotice(event.type, shown)
    if event.model_id is None and event.type is not EngineEventType.CLOSED:
        yield "llama:status", state
    if event.type is EngineEventType.STOPPED:
        yield "models:router-stopped", wire.RouterStopped("stopped")


# --- envelopes --------------------------------------------------------------------------------------------------------


def _open(payload: object) -> Mapping[str, object]:
    """The data of a request, flat or enveloped. Raises InvalidInput."""
    if payload is TOO_LARGE:
        raise InvalidInput("payload", "must not be larger than 1 MB")
    if payload is None:
        return {}
    if not isinstance(payload, dict):
        raise InvalidInput("payload", f"must be an object, not {_json_type(payload)}")
    request_id = payload.get("requestId")
    if request_id is not None and not isinstance(request_id, str | int):
        raise InvalidInput("requestId", f"must be a string, not {_json_type(request_id)}")
    if payload.get("type") != "request" or payload.get("data") is None:
        return payload
    data = payload["data"]
    if not isinstance(data, dict):
        raise InvalidInput("data", f"must be an object, not {_json_type(data)}")
    return data


def _request_id(payload: object) -> str | int:
    """The client's own, wherever it put it, so that even a refusal finds its request; else a new one."""
    envelope = payload if isinstance(payload, dict) else {}
    data = envelope.get("data")
    for holder in (envelope, data if isinstance(data, dict) else {}):
        given = holder.get("requestId")
        if isinstance(given, str | int):
            return given
    return f"req_{uuid.uuid4().hex[:16]}"


def _json_type(value: object) -> str:
    names = {
        bool: "a boolean",
        int: "a number",
        float: "a number",
        str: "a string",
        list: "an array",
        dict: "an object",
    }
    return names.get(type(value), "binary data")


def _respelled(error: ServiceError, spelling: Mapping[str, str]) -> ServiceError:
    """The same error, with its field named as the client did."""
    if not isinstance(error, InvalidInput) or error.field not in spelling:
        return error
    problem = error.message.removeprefix(f"{error.field}: ")
    return InvalidInput(spelling[error.field], problem, details=error.details)
