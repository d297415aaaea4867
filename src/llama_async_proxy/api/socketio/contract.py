"""Tables of a Socket.IO dialect: the requests of clients, the events of the server, and the error codes.

Requests are answered by these tables; docs/events.md and the TypeScript types are generated from them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar, get_type_hints

import msgspec

from llama_async_proxy.errors import InvalidInput, NotFound, PresetInvalid, ServiceError
from llama_async_proxy.operations.context import Context
from llama_async_proxy.operations.operation import Operation

Payload = TypeVar("Payload")
Input = TypeVar("Input")
Output = TypeVar("Output")

INVALID_REQUEST = "INVALID_REQUEST"


class Nothing(msgspec.Struct):
    """Payload of a request without fields; fields that a client sends are ignored."""


@dataclass(frozen=True, slots=True)
class Call(Generic[Payload, Input, Output]):
    """A request that is answered by an operation."""

    event: str
    payload: type[Payload]
    read: Callable[[Payload], Input]
    """Makes the operation's input. May raise InvalidInput."""
    operation: Operation[Input, Output]
    render: Callable[[Output], msgspec.Struct]
    """Makes the answer's data of the operation's output."""
    failure: str | None = None
    """Error code for every error of the operation; None: the error's own code."""
    not_found: str | None = None
    """Error code for an unknown id, where it differs from `failure`."""
    invalid: str | None = None
    """Error code for values that the operation refuses, where it differs from `failure`."""
    broadcasts: tuple[str, ...] = ()
    """Events that every client receives when the request succeeds."""
    answers_as: str = ""
    """Event whose result carries the answer; empty: `event`."""
    field_aliases: Mapping[str, str] = field(default_factory=dict)
    """Field names of the operation -> field names of the payload, for error messages."""
    description: str = ""
    """One sentence for docs/events.md, where the operation's name is not enough."""

    @property
    def answer(self) -> type[msgspec.Struct]:
        """Type of the answer's data."""
        found: type[msgspec.Struct] = get_type_hints(self.render)["return"]
        return found

    async def run(self, context: Context, request: Input) -> msgspec.Struct:
        """Answer of one request. Raises ServiceError as the operation does."""
        return self.render(await self.operation.run(context, request))


@dataclass(frozen=True, slots=True)
class ConnectionCall:
    """A request about the client's own connection; the namespace answers it without an operation."""

    event: str
    payload: type[Any]
    answer: type[msgspec.Struct]
    description: str
    broadcasts: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ServerEvent:
    """An event that clients receive without a request."""

    event: str
    data: type[msgspec.Struct]
    description: str


@dataclass(frozen=True, slots=True)
class Dialect:
    """Everything one namespace understands and says."""

    title: str
    namespace: str
    path: str
    """Engine.IO path by which the dialect's documentation connects; both paths serve every namespace."""
    calls: tuple[Call[Any, Any, Any] | ConnectionCall, ...]
    events: tuple[ServerEvent, ...]
    codes: Mapping[str, str]
    """Error codes and their meanings."""
    unexpected: str
    """Error code for a fault of the service."""
    overloaded: str
    """Error code for a client with too many requests running."""
    not_found: str
    """Error code for an unknown id where the call names none."""
    by_event: Mapping[str, Call[Any, Any, Any] | ConnectionCall] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "by_event", {call.event: call for call in self.calls})

    def code(self, call: Call[Any, Any, Any], error: ServiceError) -> str:
        """Error code for an error that `call`'s operation raised."""
        own = error.socket_code if error.socket_code in self.codes else None
        if isinstance(error, NotFound):
            return own or call.not_found or call.failure or self.not_found
        if isinstance(error, PresetInvalid):
            return own or call.invalid or call.failure or INVALID_REQUEST
        if isinstance(error, InvalidInput):
            return call.invalid or call.failure or INVALID_REQUEST
        return own or call.failure or self.unexpected


def no_fields(request: Callable[[], Input]) -> Callable[[Nothing], Input]:
    """`read` of a call whose request has no fields: it builds the operation's input without arguments."""
    return lambda _: request()
