"""Socket.IO v1 on namespace `/`: enveloped requests, answered by acknowledgement or `<event>:result`, and broadcasts.

`dialect.py` lists the requests and events.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import msgspec

from llama_async_proxy.api.socketio.contract import INVALID_REQUEST, ConnectionCall
from llama_async_proxy.api.socketio.dispatch import CallFailure, CallSuccess, Dispatcher
from llama_async_proxy.api.socketio.emitter import Emitter
from llama_async_proxy.api.socketio.namespace import Namespace
from llama_async_proxy.api.socketio.v1 import connection, envelope, feeds
from llama_async_proxy.api.socketio.v1.broadcasts import V1Broadcasts
from llama_async_proxy.api.socketio.v1.dialect import V1
from llama_async_proxy.api.socketio.v1.subscriptions import Subscriptions
from llama_async_proxy.errors import InvalidInput
from llama_async_proxy.operations.context import Context

_FEED_REQUESTS = (feeds.SUBSCRIBE.event, feeds.MESSAGE.event)
"""Requests without an envelope, whose refusal is the event `error`."""


class V1Namespace(Namespace):
    name = V1.namespace

    def __init__(self, context: Callable[[], Context], emitter: Emitter) -> None:
        super().__init__(context, emitter)
        self._dispatcher = Dispatcher(V1, context, self._answer_connection_call)
        self._subscriptions = Subscriptions(context, emitter)
        self._broadcasts = V1Broadcasts(context, emitter, self._clients, self._subscriptions)

    def connected(self, client: str) -> None:
        super().connected(client)
        self._broadcasts.clients_changed()

    def disconnected(self, client: str) -> None:
        super().disconnected(client)
        self._subscriptions.disconnected(client)
        self._broadcasts.clients_changed()

    async def announce_shutdown(self) -> None:
        await self._subscriptions.announce_shutdown()

    async def run(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._broadcasts.run())
            tasks.create_task(self._subscriptions.run())

    async def answer(self, client: str, event: object, payload: object, *, acknowledged: bool) -> object:
        """The envelope for the acknowledgement; without one it is sent to the client as an event of its own."""
        answer = await self._respond(client, event, payload)
        if acknowledged or (event == connection.ACK.event and answer["success"]):
            return answer
        if event not in _FEED_REQUESTS:
            await self._emitter.send(client, str(answer["event"]), answer)
        elif isinstance(error := answer["error"], dict):
            await self._subscriptions.refuse(client, "VALIDATION_ERROR", error["message"])
        return answer

    async def _respond(self, client: str, event: object, payload: object) -> envelope.Envelope:
        request_id = envelope.request_id(payload)
        outcome: CallSuccess | CallFailure
        try:
            data = payload if event in _FEED_REQUESTS else envelope.request_data(payload)
        except InvalidInput as error:
            outcome = CallFailure(INVALID_REQUEST, error.message)
        else:
            outcome = await self._dispatcher.run(client, event, data)
        return envelope.response(event, request_id, outcome, self._context().now_ms())

    async def _answer_connection_call(self, client: str, call: ConnectionCall, payload: Any) -> msgspec.Struct:
        if call is connection.ACK:
            now_ms = self._context().now_ms()
            name = connection.ESTABLISHED.event
            established = connection.Established(client, now_ms)
            await self._emitter.send(client, name, envelope.broadcast(name, established, now_ms))
            return connection.Acknowledged(client)
        feed: str = payload.feed
        if self.is_connected(client):
            self._subscriptions.subscribe(client, feed)
        return feeds.Subscribed(feed)
