"""Events that Socket.IO v1 sends without a request: announcements, samples, log lines and the engine's activity."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection

import msgspec

from llama_async_proxy.api.socketio.contract import ServerEvent
from llama_async_proxy.api.socketio.emitter import Emitter
from llama_async_proxy.api.socketio.log_tail import follow_log
from llama_async_proxy.api.socketio.sample_feed import SampleFeed
from llama_async_proxy.api.socketio.v1 import engine, envelope, logs, metrics
from llama_async_proxy.api.socketio.v1.announcements import ANNOUNCED, Announcer
from llama_async_proxy.api.socketio.v1.subscriptions import Subscriptions
from llama_async_proxy.operations.context import Context
from llama_async_proxy.records.logs import LogLine
from llama_async_proxy.records.machine import Sample

_MOST_WAITING = 10_000
"""Events that may wait for their broadcast: the first scan of a large directory registers each model at once."""


class V1Broadcasts:
    """Sends to `clients`, a set that its owner changes."""

    def __init__(
        self,
        context: Callable[[], Context],
        emitter: Emitter,
        clients: Collection[str],
        subscriptions: Subscriptions,
    ) -> None:
        self._context = context
        self._emitter = emitter
        self._clients = clients
        self._subscriptions = subscriptions
        self._announcer = Announcer(context)
        self._samples = SampleFeed(context, self._metrics_interval_s, self._send_metrics)

    def clients_changed(self) -> None:
        """Called when a client has come or gone."""
        self._samples.want(is_wanted=bool(self._clients))

    async def run(self) -> None:
        """Send until cancelled."""
        context = self._context()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._announce())
            tasks.create_task(self._samples.run())
            tasks.create_task(self._send_activity())
            tasks.create_task(follow_log(context.bus, context.now_ms, self._send_line))

    async def _announce(self) -> None:
        context = self._context()
        with context.bus.subscribe(*ANNOUNCED, limit=_MOST_WAITING) as events:
            async for event in events:
                async for announced, data in self._announcer.announcements(event):
                    message = envelope.broadcast(announced.event, data, context.now_ms())
                    await self._emitter.broadcast(announced.event, message)

    def _metrics_interval_s(self) -> float:
        settings = self._context().settings
        return settings.metrics_broadcast_s if self._clients else settings.metrics_broadcast_idle_s

    async def _send_metrics(self, sample: Sample) -> None:
        if self._clients:
            self._emit_volatile(metrics.UPDATE, metrics.sample_metrics(sample))
            await self._subscriptions.send_metrics()

    async def _send_activity(self) -> None:
        while True:
            context = self._context()
            await asyncio.sleep(context.settings.engine_broadcast_s)
            if self._clients and (activity := await engine.current_activity(context)):
                self._emit_volatile(engine.ACTIVITY, activity)

    def _send_line(self, line: LogLine) -> None:
        self._emit_volatile(logs.ENTRY, logs.log_entry(line))

    def _emit_volatile(self, event: ServerEvent, data: msgspec.Struct) -> None:
        message = envelope.broadcast(event.event, data, self._context().now_ms())
        self._emitter.emit_volatile(event.event, message, self._clients)
