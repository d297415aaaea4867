"""Announcements of the acknowledged dialect: changes of models' states, and clients that come and go."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Collection

import msgspec

from llama_async_proxy.api.socketio.ack import connection, models
from llama_async_proxy.api.socketio.contract import ServerEvent
from llama_async_proxy.api.socketio.emitter import Emitter
from llama_async_proxy.api.socketio.model_status import DeduplicatedStatus
from llama_async_proxy.api.socketio.rate_limit import RateLimiter
from llama_async_proxy.errors import NotFound
from llama_async_proxy.events import ModelDeleted, ModelRuntimeChanged
from llama_async_proxy.operations.context import Context
from llama_async_proxy.operations.models import GetModel, get_model
from llama_async_proxy.records.runtime import ModelRuntime

_NOTICES_PER_SECOND = 20


class ModelAnnouncer:
    """Broadcasts each change of a model's state once."""

    def __init__(self, context: Callable[[], Context], emitter: Emitter) -> None:
        self._context = context
        self._emitter = emitter
        self._statuses = DeduplicatedStatus()

    async def run(self) -> None:
        """Broadcast until cancelled."""
        with self._context().bus.subscribe(ModelRuntimeChanged, ModelDeleted) as events:
            async for event in events:
                if isinstance(event, ModelDeleted):
                    self._statuses.forget(event.model.id)
                elif isinstance(event, ModelRuntimeChanged):
                    await self._announce(event.runtime)

    async def _announce(self, runtime: ModelRuntime) -> None:
        status = self._statuses.new_status(runtime)
        if status is None:
            return
        try:
            model = (await get_model(self._context(), GetModel(runtime.model_id))).model
        except NotFound:
            return  # deleted meanwhile
        await self._broadcast(models.STATUS, models.model_status(model, status, runtime.error))
        if status == "loaded":
            await self._broadcast(models.LOADED, models.AckModelNotice(model.slug))
        elif status == "unloaded":
            await self._broadcast(models.UNLOADED, models.AckModelNotice(model.slug))

    async def _broadcast(self, event: ServerEvent, data: msgspec.Struct) -> None:
        await self._emitter.broadcast(event.event, msgspec.to_builtins(data))


class ConnectionAnnouncer:
    """Tells each client of the others that come and go, at a bounded rate."""

    def __init__(self, emitter: Emitter, clients: Collection[str]) -> None:
        self._emitter = emitter
        self._clients = clients
        self._waiting: deque[tuple[ServerEvent, str]] = deque(maxlen=_NOTICES_PER_SECOND)
        """(event, client). When too many come and go, only the newest are announced."""
        self._noticed = asyncio.Event()

    def connected(self, client: str) -> None:
        self._notice(connection.CONNECTED, client)

    def disconnected(self, client: str) -> None:
        self._notice(connection.DISCONNECTED, client)

    def _notice(self, event: ServerEvent, client: str) -> None:
        self._waiting.append((event, client))
        self._noticed.set()

    async def run(self) -> None:
        """Send until cancelled."""
        limiter = RateLimiter(_NOTICES_PER_SECOND)
        while True:
            await self._noticed.wait()
            self._noticed.clear()
            while self._waiting:
                await limiter.turn()
                event, client = self._waiting.popleft()
                others = [other for other in self._clients if other != client]
                notice = msgspec.to_builtins(connection.ClientNotice(client))
                self._emitter.emit_volatile(event.event, notice, others)
