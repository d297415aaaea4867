"""Events that the acknowledged dialect sends without a request: announcements, samples and log lines."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection

import msgspec

from llama_async_proxy.api.socketio.ack import logs, metrics
from llama_async_proxy.api.socketio.ack.announcements import ConnectionAnnouncer, ModelAnnouncer
from llama_async_proxy.api.socketio.contract import ServerEvent
from llama_async_proxy.api.socketio.emitter import Emitter
from llama_async_proxy.api.socketio.log_tail import follow_log
from llama_async_proxy.api.socketio.sample_feed import SampleFeed
from llama_async_proxy.operations.context import Context
from llama_async_proxy.records.logs import LogLine
from llama_async_proxy.records.machine import Sample


class AckBroadcasts:
    """Sends to `clients`, a set that its owner changes."""

    def __init__(self, context: Callable[[], Context], emitter: Emitter, clients: Collection[str]) -> None:
        self._context = context
        self._emitter = emitter
        self._clients = clients
        self._without_metrics: set[str] = set()
        """Clients that have unsubscribed from metrics."""
        self._models = ModelAnnouncer(context, emitter)
        self._connections = ConnectionAnnouncer(emitter, clients)
        self._samples = SampleFeed(context, lambda: context().settings.metrics_broadcast_s, self._send_metrics)

    def connected(self, client: str) -> None:
        """Announce a client, which receives metrics from now on."""
        self._connections.connected(client)
        self._update_samples()

    def disconnected(self, client: str) -> None:
        """Announce that a client has left."""
        self._connections.disconnected(client)
        self.subscribe_metrics(client)

    def subscribe_metrics(self, client: str) -> None:
        """Send metrics to a client again."""
        self._without_metrics.discard(client)
        self._update_samples()

    def unsubscribe_metrics(self, client: str) -> None:
        """Send no more metrics to a client."""
        self._without_metrics.add(client)
        self._update_samples()

    def _update_samples(self) -> None:
        self._samples.want(is_wanted=len(self._clients) > len(self._without_metrics))

    async def run(self) -> None:
        """Send until cancelled."""
        context = self._context()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._models.run())
            tasks.create_task(self._connections.run())
            tasks.create_task(self._samples.run())
            tasks.create_task(follow_log(context.bus, context.now_ms, self._send_line))

    async def _send_metrics(self, sample: Sample) -> None:
        if clients := [client for client in self._clients if client not in self._without_metrics]:
            self._emit_volatile(metrics.UPDATE, metrics.sample_metrics(sample), clients)

    def _send_line(self, line: LogLine) -> None:
        self._emit_volatile(logs.ENTRY, logs.log_entry(line), self._clients)

    def _emit_volatile(self, event: ServerEvent, data: msgspec.Struct, clients: Collection[str]) -> None:
        self._emitter.emit_volatile(event.event, msgspec.to_builtins(data), clients)
