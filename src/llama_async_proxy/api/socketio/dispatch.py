"""Answering a socket client's request, whatever its dialect: bounds, decoding, the operation, what went wrong."""

from __future__ import annotations

import logging
import uuid
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import msgspec
from msgspec import Struct

from llama_async_proxy.api.decode import decode
from llama_async_proxy.api.socketio.contract import INVALID_REQUEST, Call, ConnectionCall, Dialect
from llama_async_proxy.api.socketio.emitter import TOO_LARGE
from llama_async_proxy.errors import InvalidInput, ServiceError
from llama_async_proxy.operations.context import Context

logger = logging.getLogger(__name__)

MOST_RUNNING = 64
"""Requests of one client that may run at a time. A page asks for a dozen things at once, a program for one or two."""
_NAME_SHOWN = 100
"""Characters of an unknown event's name that are repeated to its sender."""


class Success(Struct, frozen=True):
    data: object
    """JSON values."""


class Failure(Struct, frozen=True):
    code: str
    message: str
    details: str | None = None


Local = Callable[[str, ConnectionCall, Any], Awaitable[msgspec.Struct]]
"""(client, call, payload) -> answer; what the dialect does itself. Raises InvalidInput."""


class Calls:
    """The requests of one dialect. Never raises for what a client sent or an operation did."""

    def __init__(self, dialect: Dialect, context: Callable[[], Context], local: Local) -> None:
        self._dialect = dialect
        self._context = context
        self._local = local
        self._running: Counter[str] = Counter()

    async def run(self, client: str, event: object, payload: object) -> Success | Failure:
        """`payload` is parsed JSON, without an envelope; None stands for no fields."""
        if self._running[client] >= MOST_RUNNING:
            message = f"{MOST_RUNNING} requests of yours are running; wait for one of them to be answered."
            return Failure(self._dialect.overloaded, message)
        self._running[client] += 1
        try:
            return await self._run(client, event, payload)
        finally:
            self._running[client] -= 1
            if not self._running[client]:
                del self._running[client]

    async def _run(self, client: str, event: object, payload: object) -> Success | Failure:
        call = self._dialect.by_event.get(event) if isinstance(event, str) else None
        try:
            if call is None:
                raise InvalidInput("event", f"{str(event)[:_NAME_SHOWN]!r} is not an event of this API")
            request = decode(as_object(payload), call.payload)
            if isinstance(call, Call):
                request = call.read(request)
        except InvalidInput as error:
            return Failure(INVALID_REQUEST, error.message)
        try:
            if isinstance(call, ConnectionCall):
                return _success(await self._local(client, call, request))
            return _success(await call.run(self._context(), request))
        except ServiceError as error:
            if isinstance(call, ConnectionCall):
                return Failure(INVALID_REQUEST, error.message)
            shown = _respelled(error, call.spelling)
            return Failure(self._dialect.code(call, error), shown.message, shown.details)
        except Exception:  # the door's boundary: whatever it was, the caller gets an answer and the log the trace
            trace_id = uuid.uuid4().hex[:12]
            logger.exception("%s failed unexpectedly, trace %s", call.event, trace_id)
            code = call.failure if isinstance(call, Call) and call.failure else self._dialect.unexpected
            return Failure(code, f"Something failed that should not have; see trace {trace_id} in the service's log.")


def _success(answer: msgspec.Struct) -> Success:
    return Success(msgspec.to_builtins(answer))


def as_object(payload: object, field: str = "payload") -> Mapping[str, object]:
    """A request's fields. Raises InvalidInput."""
    if payload is TOO_LARGE:
        raise InvalidInput("payload", "must not be larger than 1 MB")
    if payload is None:
        return {}
    if not isinstance(payload, dict):
        raise InvalidInput(field, f"must be an object, not {json_type(payload)}")
    return payload


def json_type(value: object) -> str:
    """What a value is called in JSON, with its article."""
    names = {
        bool: "a boolean",
        int: "a number",
        float: "a number",
        str: "a string",
        list: "an array",
        dict: "an object",
    }
    return names.get(type(value), "binary data")


def _respelled(error: ServiceError, spelling: Mapping[str, str]) -> ServiceError:
    """The same error, with its field named as the client did."""
    if not isinstance(error, InvalidInput) or error.field not in spelling:
        return error
    problem = error.message.removeprefix(f"{error.field}: ")
    return InvalidInput(spelling[error.field], problem, details=error.details)
