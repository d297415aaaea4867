"""Answering the requests of a dialect: limits, decoding, the operation, error codes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import msgspec
from msgspec import Struct

from llama_async_proxy.api.boundary import explanation, report
from llama_async_proxy.api.decode import decode
from llama_async_proxy.api.socketio.contract import INVALID_REQUEST, Call, ConnectionCall, Dialect
from llama_async_proxy.api.socketio.emitter import Unreadable
from llama_async_proxy.errors import InvalidInput, ServiceError
from llama_async_proxy.operations.context import Context

MOST_RUNNING = 64
"""Requests of one client that may run at a time. A page asks for a dozen things at once, a program for one or two."""
_NAME_SHOWN = 100
"""Characters of an unknown event's name that are repeated to its sender."""


class CallSuccess(Struct, frozen=True):
    """The answer's data."""

    data: object
    """JSON values."""


class CallFailure(Struct, frozen=True):
    """The error of a request that was not carried out, or not to its end."""

    code: str
    message: str
    details: str | None = None


AnswerConnectionCall = Callable[[str, ConnectionCall, Any], Awaitable[msgspec.Struct]]
"""(client, call, payload) -> answer; the dialect's own part. Raises InvalidInput."""


class Dispatcher:
    """Runs the requests of one dialect. Never raises for what a client sent or an operation did."""

    def __init__(
        self, dialect: Dialect, context: Callable[[], Context], answer_connection_call: AnswerConnectionCall
    ) -> None:
        self._dialect = dialect
        self._context = context
        self._answer_connection_call = answer_connection_call
        self._running: Counter[str] = Counter()
        """Running requests by client."""

    async def run(self, client: str, event: object, payload: object) -> CallSuccess | CallFailure:
        """Answer one request. `payload` is parsed JSON without an envelope; None stands for no fields."""
        if self._running[client] >= MOST_RUNNING:
            message = f"{MOST_RUNNING} requests of yours are running; wait for one of them to be answered."
            return CallFailure(self._dialect.overloaded, message)
        self._running[client] += 1
        try:
            return await self._run(client, event, payload)
        finally:
            self._running[client] -= 1
            if not self._running[client]:
                del self._running[client]

    async def _run(self, client: str, event: object, payload: object) -> CallSuccess | CallFailure:
        try:
            call = self._call(event)
            request = decode(as_object(payload), call.payload)
            if isinstance(call, Call):
                request = call.read(request)
        except InvalidInput as error:
            return CallFailure(INVALID_REQUEST, error.message)
        try:
            if isinstance(call, ConnectionCall):
                return _success(await self._answer_connection_call(client, call, request))
            return _success(await call.run(self._context(), request))
        except ServiceError as error:
            return self._refusal(call, error)
        except Exception:  # the boundary for faults of the service
            code = call.failure if isinstance(call, Call) and call.failure else self._dialect.unexpected
            return CallFailure(code, explanation(report(call.event)))

    def _call(self, event: object) -> Call[Any, Any, Any] | ConnectionCall:
        """The dialect's row for an event. Raises InvalidInput for an unknown one."""
        call = self._dialect.by_event.get(event) if isinstance(event, str) else None
        if call is None:
            raise InvalidInput("event", f"{str(event)[:_NAME_SHOWN]!r} is not an event of this API")
        return call

    def _refusal(self, call: Call[Any, Any, Any] | ConnectionCall, error: ServiceError) -> CallFailure:
        if isinstance(call, ConnectionCall):
            return CallFailure(INVALID_REQUEST, error.message)
        shown = _with_alias(error, call.field_aliases)
        return CallFailure(self._dialect.code(call, error), shown.message, shown.details)


def _success(answer: msgspec.Struct) -> CallSuccess:
    return CallSuccess(msgspec.to_builtins(answer))


def as_object(payload: object, field: str = "payload") -> Mapping[str, object]:
    """A request's fields. Raises InvalidInput for anything but an object, or when it was too large."""
    if isinstance(payload, Unreadable):
        raise payload.refusal()
    if payload is None:
        return {}
    if not isinstance(payload, dict):
        raise InvalidInput(field, f"must be an object, not {json_type(payload)}")
    return payload


def json_type(value: object) -> str:
    """Name of a value's type in JSON, with its article."""
    names = {
        bool: "a boolean",
        int: "a number",
        float: "a number",
        str: "a string",
        list: "an array",
        dict: "an object",
    }
    return names.get(type(value), "binary data")


def _with_alias(error: ServiceError, aliases: Mapping[str, str]) -> ServiceError:
    """The same error, naming its field as the client did."""
    if not isinstance(error, InvalidInput) or error.field not in aliases:
        return error
    problem = error.message.removeprefix(f"{error.field}: ")
    return InvalidInput(aliases[error.field], problem, details=error.details)
