"""Socket.IO v1: enveloped requests on namespace `/`, answered by acknowledgement or `<event>:result`, and broadcasts.

What there is to ask and to hear is in socket_v1_table.
"""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import msgspec.structs

from llama_async_proxy.api.socketio.contract import INVALID_REQUEST, Call, ConnectionCall
from llama_async_proxy.api.socketio.dispatch import Calls, Failure, Success, as_object, json_type
from llama_async_proxy.api.socketio.emitter import TOO_LARGE, Emitter
from llama_async_proxy.api.socketio.log_tail import follow_log
from llama_async_proxy.api.socketio.model_status import DeduplicatedStatus
from llama_async_proxy.api.socketio.v1 import logs_schema as logs_wire
from llama_async_proxy.api.socketio.v1 import schema as wire
from llama_async_proxy.api.socketio.v1.dialect import V1, Acknowledged, Established
from llama_async_proxy.api.socketio.v1.feeds import Feeds
from llama_async_proxy.errors import InvalidInput, NotFound
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
from llama_async_proxy.operations.activity import GetEngineActivity, get_engine_activity
from llama_async_proxy.operations.context import Context
from llama_async_proxy.operations.metrics import GetMetrics, get_metrics
from llama_async_proxy.records.engine import EngineEventType, EngineStatus
from llama_async_proxy.records.logs import LogLine

Envelope = dict[str, object]

_VERSION = "1.0"
_NAME_SHOWN = 100
"""Characters of an unknown event's name that are repeated to its sender."""
_MOST_WAITING = 10_000
"""A first scan of a large directory announces each model at once."""
_PROGRESS_MS = 500
"""A scan reads thousands of files a second; nobody wants to hear of each."""
_ANNOUNCED = (
    ModelCreated,
    ModelUpdated,
    ModelDeleted,
    ModelRuntimeChanged,
    EngineChanged,
    ScanFinished,
    ScanProgressed,
)


class V1Namespace:
    def __init__(self, context: Callable[[], Context], outlet: Emitter) -> None:
        self._context = context
        self._outlet = outlet
        self._calls = Calls(V1, context, self._local)
        self._feeds = Feeds(context, outlet)
        self._statuses = DeduplicatedStatus()
        self._clients: set[str] = set()
        self._first_client = asyncio.Event()
        self._next_progress_ms = 0

    def connected(self, client: str) -> None:
        self._clients.add(client)
        self._first_client.set()

    def disconnected(self, client: str) -> None:
        self._clients.discard(client)
        self._feeds.disconnected(client)

    async def farewell(self) -> None:
        await self._feeds.farewell()

    # --- requests -----------------------------------------------------------------------------------------------------

    async def answer(self, client: str, event: object, payload: object, *, acknowledged: bool) -> object:
        """The envelope for the acknowledgement; without one it goes to the client as an event of its own."""
        envelope = await self._respond(client, event, payload)
        if acknowledged or (event == "connection:ack" and envelope["success"]):
            return envelope
        if event not in ("subscribe", "message"):
            await self._outlet.send(client, str(envelope["event"]), envelope)
        elif isinstance(error := envelope["error"], dict):
            await self._feeds.refuse(client, "VALIDATION_ERROR", error["message"])
        return envelope

    async def _respond(self, client: str, event: object, payload: object) -> Envelope:
        request_id = _request_id(payload)
        try:
            data = payload if event in ("subscribe", "message") else _open(payload)
        except InvalidInput as error:
            outcome: Success | Failure = Failure(INVALID_REQUEST, error.message)
        else:
            outcome = await self._calls.run(client, event, data)
        return self._response(_result(event), request_id, outcome)

    def _response(self, result: str, request_id: object, outcome: Success | Failure) -> Envelope:
        return {
            "type": "response",
            "event": result,
            "success": isinstance(outcome, Success),
            "data": outcome.data if isinstance(outcome, Success) else None,
            "error": _error(outcome) if isinstance(outcome, Failure) else None,
            "requestId": request_id,
            "timestamp": self._context().now_ms(),
            "version": _VERSION,
        }

    async def _local(self, client: str, call: ConnectionCall, payload: Any) -> msgspec.Struct:
        if call.event == "connection:ack":
            established = Established(client, self._context().now_ms())
            await self._outlet.send(client, "connection:established", self._told("connection:established", established))
            return Acknowledged(client)
        feed: str = payload.feed
        if client in self._clients:  # else it left while its event waited, and nobody would take it out again
            self._feeds.subscribe(client, feed)
        return call.answer(feed)

    # --- broadcasts ---------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        context = self._context()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._announce())
            tasks.create_task(self._send_metrics())
            tasks.create_task(self._send_activity())
            tasks.create_task(follow_log(context.bus, context.now_ms, self._show_line))
            tasks.create_task(self._feeds.run())

    async def _announce(self) -> None:
        with self._context().bus.subscribe(*_ANNOUNCED, limit=_MOST_WAITING) as events:
            async for event in events:
                if isinstance(event, ScanProgressed) and not self._progress_due():
                    continue
                for name, data in self._announcements(event):
                    await self._outlet.broadcast(name, self._told(name, data))

    def _progress_due(self) -> bool:
        now_ms = self._context().now_ms()
        due = now_ms >= self._next_progress_ms
        if due:
            self._next_progress_ms = now_ms + _PROGRESS_MS
        return due

    def _show_line(self, line: LogLine) -> None:
        self._show("logs:entry", logs_wire.log_entry(line))

    async def _send_metrics(self) -> None:
        while True:
            await self._metrics_due()
            if self._clients:
                metrics = await get_metrics(self._context(), GetMetrics())
                self._show("metrics:update", wire.current_metrics(metrics))

    async def _metrics_due(self) -> None:
        """Without clients the pause is longer, but it ends for the first one that comes."""
        settings = self._context().configuration.settings
        self._first_client.clear()
        if not self._clients:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(settings.metrics_broadcast_idle_s):
                    await self._first_client.wait()
        if self._clients:
            await asyncio.sleep(settings.metrics_broadcast_s)

    async def _send_activity(self) -> None:
        while True:
            context = self._context()
            await asyncio.sleep(context.configuration.settings.engine_broadcast_s)
            if self._clients and context.engine.state.status is EngineStatus.RUNNING:
                activity = await get_engine_activity(context, GetEngineActivity())
                self._show("llama-server:status", logs_wire.engine_activity(activity))

    def _show(self, event: str, data: msgspec.Struct) -> None:
        self._outlet.show(event, self._told(event, data), self._clients)

    def _told(self, event: str, data: msgspec.Struct) -> Envelope:
        """The envelope of what nobody asked for."""
        return {
            "type": "broadcast",
            "event": event,
            "data": msgspec.to_builtins(data),
            "timestamp": self._context().now_ms(),
        }

    def _announcements(self, event: Event) -> Iterator[tuple[str, msgspec.Struct]]:
        """What clients are told of an event: (name, data)."""
        context = self._context()
        match event:
            case ModelCreated(model):
                yield "models:created", wire.one_model(model_operations.view(context, model))
            case ModelUpdated(model):
                yield "models:updated", wire.one_model(model_operations.view(context, model))
            case ModelDeleted(model):
                self._statuses.forget(model.id)
                yield "models:deleted", wire.DeletionNotice(model.id, model.name)
            case ModelRuntimeChanged(runtime):
                status = self._statuses.new_status(runtime)
                with contextlib.suppress(NotFound):  # deleted in between
                    if status is not None:
                        name = context.store.models.get(runtime.model_id).name
                        yield "models:status", wire.ModelState(name, status, runtime.error)
            case ScanFinished(scanned, updated, total, failed):
                yield "models:scanned", wire.ScanCounts(scanned, updated, total, failed)
            case ScanProgressed(done, total):
                yield "models:scan-progress", wire.ScanProgress(done, total)
            case EngineChanged():
                yield from _engine_announcements(context, event)


def _engine_announcements(context: Context, event: EngineChanged) -> Iterator[tuple[str, msgspec.Struct]]:
    state = wire.engine(msgspec.structs.replace(engine_operations.view(context), state=event.state))
    shown = msgspec.structs.replace(state, error=event.error or state.error)
    yield "llama:server-event", wire.EngineNotice(event.type, shown)
    if event.model_id is None and event.type is not EngineEventType.CLOSED:
        yield "llama:status", state
    if event.type is EngineEventType.STOPPED:
        yield "models:router-stopped", wire.RouterStopped("stopped")


# --- envelopes --------------------------------------------------------------------------------------------------------


def _result(event: object) -> str:
    call = V1.by_event.get(event) if isinstance(event, str) else None
    answers_as = call.answers_as if isinstance(call, Call) else ""
    return f"{answers_as or str(event)[:_NAME_SHOWN]}:result"


def _error(failure: Failure) -> dict[str, str]:
    details = {"details": failure.details} if failure.details else {}
    return {"code": failure.code, "message": failure.message, **details}


def _open(payload: object) -> object:
    """The data of a request, flat or enveloped. Raises InvalidInput."""
    if payload is TOO_LARGE:
        return payload
    fields = as_object(payload)
    request_id = fields.get("requestId")
    if request_id is not None and not isinstance(request_id, str | int):
        raise InvalidInput("requestId", f"must be a string, not {json_type(request_id)}")
    if fields.get("type") != "request" or fields.get("data") is None:
        return fields
    return as_object(fields["data"], "data")


def _request_id(payload: object) -> str | int:
    """The client's own, wherever it put it, so that even a refusal finds its request; else a new one."""
    envelope = payload if isinstance(payload, dict) else {}
    data = envelope.get("data")
    for holder in (envelope, data if isinstance(data, dict) else {}):
        given = holder.get("requestId")
        if isinstance(given, str | int):
            return given
    return f"req_{uuid.uuid4().hex[:16]}"
