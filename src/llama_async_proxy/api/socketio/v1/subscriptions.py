"""Subscribers of Socket.IO v1's feeds, and the messages they get."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable
from itertools import count

import msgspec

from llama_async_proxy.api.socketio.emitter import Emitter
from llama_async_proxy.api.socketio.v1 import feeds
from llama_async_proxy.events import LogWritten, ModelCreated, ModelDeleted, ModelRuntimeChanged, ModelUpdated
from llama_async_proxy.operations.context import Context
from llama_async_proxy.operations.metrics import GetMetrics, get_metrics
from llama_async_proxy.operations.models import ListModels, list_models
from llama_async_proxy.records.logs import LogLine

_SETTLE_S = 0.25
"""Least time between two models_update messages: a load changes a model's state many times in a moment."""
_MOST_LINES = 500
"""Lines in one logs_update; of more, the newest."""
_RETRY_MS = 1000


class Subscriptions:
    """The subscribers of each feed. `send_metrics` is called for each due sample; the other feeds have own loops."""

    def __init__(self, context: Callable[[], Context], emitter: Emitter) -> None:
        self._context = context
        self._emitter = emitter
        self._subscribers: dict[str, set[str]] = {feed: set() for feed in feeds.FEEDS}
        self._models_changed = asyncio.Event()
        self._lines: deque[tuple[int, LogLine]] = deque(maxlen=_MOST_LINES)

    def subscribe(self, client: str, feed: str) -> None:
        """Add a client to a feed; the models feed sends its first message at once."""
        self._subscribers[feed].add(client)
        if feed == "models":
            self._models_changed.set()

    def disconnected(self, client: str) -> None:
        """End the subscriptions of a client that has left."""
        for clients in self._subscribers.values():
            clients.discard(client)

    async def refuse(self, client: str, code: str, message: str) -> None:
        """Send the event `error`, which is how clients of the feeds learn of a refusal."""
        await self._send_error(client, feeds.FeedErrorData(code, message))

    async def announce_shutdown(self) -> None:
        """Tell subscribers that the service stops, and when to connect again."""
        data = feeds.FeedErrorData("SERVICE_UNAVAILABLE", "The service is stopping.", True, _RETRY_MS)
        for client in set().union(*self._subscribers.values()):
            await self._send_error(client, data)

    async def send_metrics(self) -> None:
        """Send metrics_update to the subscribers of metrics, from the sample just taken."""
        if clients := self._subscribers["metrics"]:
            metrics = await get_metrics(self._context(), GetMetrics())
            self._emit_volatile(feeds.metrics_update(metrics), clients)

    async def run(self) -> None:
        """Send the feeds of models and logs until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._send_models())
            tasks.create_task(self._watch_models())
            tasks.create_task(self._collect_lines())
            tasks.create_task(self._send_lines())

    async def _send_models(self) -> None:
        while True:
            context = self._context()
            self._models_changed.clear()
            if clients := self._subscribers["models"]:
                listed = await list_models(context, ListModels())
                self._emit_volatile(feeds.models_update(listed.models, context.now_ms()), clients)
            await asyncio.sleep(_SETTLE_S)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(context.settings.models_feed_s):
                    await self._models_changed.wait()

    async def _watch_models(self) -> None:
        kinds = (ModelCreated, ModelUpdated, ModelDeleted, ModelRuntimeChanged)
        with self._context().bus.subscribe(*kinds) as changes:
            async for change in changes:
                if not isinstance(change, ModelRuntimeChanged) or change.runtime.status != change.previous.status:
                    self._models_changed.set()

    async def _collect_lines(self) -> None:
        numbers = count(1)
        with self._context().bus.subscribe(LogWritten) as events:
            async for event in events:
                if isinstance(event, LogWritten):
                    self._lines.append((next(numbers), event.line))

    async def _send_lines(self) -> None:
        while True:
            context = self._context()
            await asyncio.sleep(context.settings.logs_feed_s)
            lines = tuple(self._lines)
            self._lines.clear()
            if lines and (clients := self._subscribers["logs"]):
                self._emit_volatile(feeds.logs_update(lines, context.now_ms()), clients)

    def _emit_volatile(
        self, message: feeds.MetricsUpdate | feeds.ModelsUpdate | feeds.LogsUpdate, clients: set[str]
    ) -> None:
        self._emitter.emit_volatile(message.type, msgspec.to_builtins(message), clients)

    async def _send_error(self, client: str, data: feeds.FeedErrorData) -> None:
        error = feeds.feed_error(data, self._context().now_ms())
        await self._emitter.send(client, feeds.ERROR.event, msgspec.to_builtins(error))
