"""The acknowledged dialect of Socket.IO, on namespace `/llamaproxws`: answers by acknowledgement, bare events.

What there is to ask and to hear is in socket_ack_table.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Collection
from typing import Any

import msgspec

from llama_async_proxy.api.socketio.ack import schema as wire
from llama_async_proxy.api.socketio.ack.dialect import ACK, ClientNotice, Subscription
from llama_async_proxy.api.socketio.contract import ConnectionCall
from llama_async_proxy.api.socketio.dispatch import Calls, Failure
from llama_async_proxy.api.socketio.emitter import Emitter
from llama_async_proxy.api.socketio.log_tail import follow_log
from llama_async_proxy.api.socketio.model_status import DeduplicatedStatus
from llama_async_proxy.api.socketio.rate_limit import RateLimiter
from llama_async_proxy.errors import NotFound
from llama_async_proxy.events import ModelDeleted, ModelRuntimeChanged
from llama_async_proxy.monitor.logtext import timestamp
from llama_async_proxy.operations.context import Context
from llama_async_proxy.operations.metrics import GetMetrics, get_metrics
from llama_async_proxy.records.logs import LogLine
from llama_async_proxy.records.runtime import ModelRuntime

_NOTICES_PER_SECOND = 20


class AckNamespace:
    def __init__(self, context: Callable[[], Context], outlet: Emitter) -> None:
        self._context = context
        self._outlet = outlet
        self._calls = Calls(ACK, context, self._local)
        self._statuses = DeduplicatedStatus()
        self._clients: set[str] = set()
        self._without_metrics: set[str] = set()
        self._notices: deque[tuple[str, str]] = deque(maxlen=_NOTICES_PER_SECOND)
        """(event, client); in a storm the newest are told."""
        self._noticed = asyncio.Event()

    def connected(self, client: str) -> None:
        self._clients.add(client)
        self._notice("client:connected", client)

    def disconnected(self, client: str) -> None:
        self._clients.discard(client)
        self._without_metrics.discard(client)
        self._notice("client:disconnected", client)

    def _notice(self, event: str, client: str) -> None:
        self._notices.append((event, client))
        self._noticed.set()

    # --- requests -----------------------------------------------------------------------------------------------------

    async def answer(self, client: str, event: object, payload: object, *, acknowledged: bool) -> object:  # noqa: ARG002
        """{"success": true, "data": ...} or {"success": false, "error": ...}."""
        outcome = await self._calls.run(client, event, payload)
        now = timestamp(self._context().now_ms())
        if isinstance(outcome, Failure):
            details = {"details": outcome.details} if outcome.details else {}
            error = {"message": outcome.message, "code": outcome.code, **details}
            return {"success": False, "error": error, "timestamp": now}
        return {"success": True, "data": outcome.data, "timestamp": now}

    async def _local(self, client: str, call: ConnectionCall, _: Any) -> msgspec.Struct:
        subscribed = call.event == "metrics:subscribe"
        if subscribed:
            self._without_metrics.discard(client)
        elif client in self._clients:  # else it left while its event waited, and nobody would take it out again
            self._without_metrics.add(client)
        return Subscription(subscribed)

    # --- events -------------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        context = self._context()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._announce_models())
            tasks.create_task(self._send_notices())
            tasks.create_task(self._send_metrics())
            tasks.create_task(follow_log(context.bus, context.now_ms, self._show_line))

    async def _announce_models(self) -> None:
        with self._context().bus.subscribe(ModelRuntimeChanged, ModelDeleted) as events:
            async for event in events:
                if isinstance(event, ModelDeleted):
                    self._statuses.forget(event.model.id)
                elif isinstance(event, ModelRuntimeChanged):
                    with contextlib.suppress(NotFound):  # deleted in between
                        await self._announce(event.runtime)

    async def _announce(self, runtime: ModelRuntime) -> None:
        status = self._statuses.new_status(runtime)
        if status is None:
            return
        model = self._context().store.models.get(runtime.model_id)
        await self._broadcast("models:status", wire.model_status(model, status, runtime.error))
        if status in ("loaded", "unloaded"):
            await self._broadcast(f"models:{status}", wire.AckModelNotice(model.slug))

    async def _send_notices(self) -> None:
        pace = RateLimiter(_NOTICES_PER_SECOND)
        while True:
            await self._noticed.wait()
            self._noticed.clear()
            while self._notices:
                await pace.turn()
                event, client = self._notices.popleft()
                self._show(event, ClientNotice(client), self._clients - {client})

    async def _send_metrics(self) -> None:
        while True:
            context = self._context()
            await asyncio.sleep(context.configuration.settings.metrics_broadcast_s)
            if clients := self._clients - self._without_metrics:
                metrics = await get_metrics(context, GetMetrics())
                self._show("metrics:update", wire.metrics(metrics), clients)

    def _show_line(self, line: LogLine) -> None:
        self._show("logs:entry", wire.AckLogEntry(wire.log_line(line)), self._clients)

    async def _broadcast(self, event: str, data: msgspec.Struct) -> None:
        await self._outlet.broadcast(event, msgspec.to_builtins(data))

    def _show(self, event: str, data: msgspec.Struct, clients: Collection[str]) -> None:
        self._outlet.show(event, msgspec.to_builtins(data), clients)
