"""The acknowledged dialect on namespace `/llamaproxws`: answers by acknowledgement, events without an envelope.

`dialect.py` lists the requests and events.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from llama_async_proxy.api.socketio.ack import metrics
from llama_async_proxy.api.socketio.ack.broadcasts import AckBroadcasts
from llama_async_proxy.api.socketio.ack.dialect import ACK
from llama_async_proxy.api.socketio.contract import ConnectionCall
from llama_async_proxy.api.socketio.dispatch import CallFailure, Dispatcher
from llama_async_proxy.api.socketio.emitter import Emitter
from llama_async_proxy.api.socketio.namespace import Namespace
from llama_async_proxy.api.units import iso_time
from llama_async_proxy.operations.context import Context


class AckNamespace(Namespace):
    name = ACK.namespace

    def __init__(self, context: Callable[[], Context], emitter: Emitter) -> None:
        super().__init__(context, emitter)
        self._dispatcher = Dispatcher(ACK, context, self._answer_connection_call)
        self._broadcasts = AckBroadcasts(context, emitter, self._clients)

    def connected(self, client: str) -> None:
        super().connected(client)
        self._broadcasts.connected(client)

    def disconnected(self, client: str) -> None:
        super().disconnected(client)
        self._broadcasts.disconnected(client)

    async def run(self) -> None:
        await self._broadcasts.run()

    async def answer(self, client: str, event: object, payload: object, *, acknowledged: bool) -> object:  # noqa: ARG002
        """{"success": true, "data": ...} or {"success": false, "error": ...}."""
        outcome = await self._dispatcher.run(client, event, payload)
        now = iso_time(self._context().now_ms())
        if isinstance(outcome, CallFailure):
            details = {"details": outcome.details} if outcome.details else {}
            error = {"message": outcome.message, "code": outcome.code, **details}
            return {"success": False, "error": error, "timestamp": now}
        return {"success": True, "data": outcome.data, "timestamp": now}

    async def _answer_connection_call(self, client: str, call: ConnectionCall, _: Any) -> msgspec.Struct:
        is_subscription = call is metrics.SUBSCRIBE
        if is_subscription:
            self._broadcasts.subscribe_metrics(client)
        elif self.is_connected(client):
            self._broadcasts.unsubscribe_metrics(client)
        return metrics.MetricsSubscription(is_subscription)
