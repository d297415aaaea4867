"""The feeds of Socket.IO v1 that clients subscribe to: metrics, models and logs."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable
from itertools import count

import msgspec

from llama_async_proxy.api.socketio.emitter import Emitter
from llama_async_proxy.api.socketio.v1 import feeds_schema as wire
from llama_async_proxy.events import LogWritten, ModelCreated, ModelDeleted, ModelRuntimeChanged, ModelUpdated
from llama_async_proxy.operations.context import Context
from llama_async_proxy.operations.metrics import GetMetrics, get_metrics
from llama_async_proxy.operations.models import ListModels, list_models
from llama_async_proxy.records.logs import LogLine

_SETTLE_S = 0.25
"""A load changes a model's state many times in a moment."""
_MOST_LINES = 500
"""Lines in one message; of more, the newest."""
_RETRY_MS = 1000


class Feeds:
    def __init__(self, context: Callable[[], Context], outlet: Emitter) -> None:
        self._context = context
        self._outlet = outlet
        self._subscribers: dict[str, set[str]] = {feed: set() for feed in wire.FEEDS}
        self._models_changed = asyncio.Event()
        self._lines: deque[tuple[int, LogLine]] = deque(maxlen=_MOST_LINES)

    def subscribe(self, client: str, feed: str) -> None:
        self._subscribers[feed].add(client)
        if feed == "models":
            self._models_changed.set()

    def disconnected(self, client: str) -> None:
        for clients in self._subscribers.values():
            clients.discard(client)

    async def refuse(self, client: str, code: str, message: str) -> None:
        await self._tell(client, wire.FeedErrorData(code, message))

    async def farewell(self) -> None:
        """Tell subscribers that the service goes away for a moment."""
        data = wire.FeedErrorData("SERVICE_UNAVAILABLE", "The service is stopping.", True, _RETRY_MS)
        for client in set().union(*self._subscribers.values()):
            await self._tell(client, data)

    async def _tell(self, client: str, data: wire.FeedErrorData) -> None:
        error = wire.feed_error(data, self._context().now_ms())
        await self._outlet.send(client, "error", msgspec.to_builtins(error))

    async def run(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._send_metrics())
            tasks.create_task(self._send_models())
            tasks.create_task(self._watch_models())
            tasks.create_task(self._keep_lines())
            tasks.create_task(self._send_lines())

    async def _send_metrics(self) -> None:
        while True:
            context = self._context()
            if clients := self._subscribers["metrics"]:
                metrics = await get_metrics(context, GetMetrics())
                registered = len(context.store.models.all())
                self._show(wire.metrics_update(metrics, registered), clients)
            await asyncio.sleep(context.configuration.settings.metrics_broadcast_s)

    async def _send_models(self) -> None:
        while True:
            context = self._context()
            self._models_changed.clear()
            if clients := self._subscribers["models"]:
                listed = await list_models(context, ListModels())
                self._show(wire.models_update(listed.models, context.now_ms()), clients)
            await asyncio.sleep(_SETTLE_S)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(context.configuration.settings.models_feed_s):
                    await self._models_changed.wait()

    async def _watch_models(self) -> None:
        kinds = (ModelCreated, ModelUpdated, ModelDeleted, ModelRuntimeChanged)
        with self._context().bus.subscribe(*kinds) as changes:
            async for change in changes:
                if not isinstance(change, ModelRuntimeChanged) or change.runtime.status != change.previous.status:
                    self._models_changed.set()

    async def _keep_lines(self) -> None:
        numbers = count(1)
        with self._context().bus.subscribe(LogWritten) as events:
            async for event in events:
                if isinstance(event, LogWritten):
                    self._lines.append((next(numbers), event.line))

    async def _send_lines(self) -> None:
        while True:
            context = self._context()
            await asyncio.sleep(context.configuration.settings.logs_feed_s)
            lines = tuple(self._lines)
            self._lines.clear()
            if lines and (clients := self._subscribers["logs"]):
                self._show(wire.logs_update(lines, context.now_ms()), clients)

    def _show(self, message: wire.MetricsUpdate | wire.ModelsUpdate | wire.LogsUpdate, clients: set[str]) -> None:
        self._outlet.show(message.type, msgspec.to_builtins(message), clients)
