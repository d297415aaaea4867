"""The web UI's own namespace, `/ui`: topics to join, and every operation to call by its name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from llama_async_proxy.api.boundary import explanation, report
from llama_async_proxy.api.decode import decode
from llama_async_proxy.api.socketio.emitter import Emitter, Unreadable
from llama_async_proxy.api.socketio.namespace import Namespace
from llama_async_proxy.api.ui.render import rendered_error, rendered_output
from llama_async_proxy.api.ui.topics import Topics
from llama_async_proxy.errors import InvalidInput, NotFound, ServiceError
from llama_async_proxy.operations.context import Context
from llama_async_proxy.operations.table import OPERATIONS


class _Join(msgspec.Struct):
    topic: str
    since: int | None = None


class _Leave(msgspec.Struct):
    topic: str


class _OperationCall(msgspec.Struct):
    operation: str
    input: dict[str, Any] = {}


class UiNamespace(Namespace):
    name = "/ui"

    def __init__(self, context: Callable[[], Context], emitter: Emitter) -> None:
        super().__init__(context, emitter)
        self._topics = Topics(context, emitter)

    def disconnected(self, client: str) -> None:
        super().disconnected(client)
        self._topics.leave_all(client)

    async def run(self) -> None:
        await self._topics.run()

    async def answer(self, client: str, event: object, payload: object, *, acknowledged: bool) -> object:  # noqa: ARG002
        """{"ok": true, "data": ...} or {"ok": false, "error": ...}."""
        try:
            return {"ok": True, "data": await self._answer(client, event, payload)}
        except ServiceError as error:
            return {"ok": False, "error": rendered_error(error)}
        except Exception:  # the boundary for faults of the service
            return {"ok": False, "error": rendered_error(ServiceError(explanation(report(repr(event)))))}

    async def _answer(self, client: str, event: object, payload: object) -> object:
        if isinstance(payload, Unreadable):
            raise payload.refusal()
        match event:
            case "join":
                request = decode(payload, _Join)
                topic = self._topics.find(request.topic)
                if self.is_connected(client):
                    await self._topics.join(topic, client, request.since)
            case "leave":
                self._topics.leave(self._topics.find(decode(payload, _Leave).topic), client)
            case "call":
                return await self._call(decode(payload, _OperationCall))
            case _:
                raise InvalidInput("event", "must be join, leave or call")
        return None

    async def _call(self, call: _OperationCall) -> object:
        operation = OPERATIONS.get(call.operation)
        if operation is None:
            raise NotFound("operation", call.operation, f"There is no operation {call.operation[:100]!r}.")
        request = decode(call.input, operation.input)
        return rendered_output(await operation(self._context(), request))
