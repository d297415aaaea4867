"""What a dialect of Socket.IO consists of, as data: what may be asked, what is sent unasked, and the error codes.

The doors answer by these tables, docs/events.md and the TypeScript types are made from them.
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
    """A request without fields; what is there is ignored."""


@dataclass(frozen=True, slots=True)
class Call(Generic[Payload, Input, Output]):
    """Something a client may ask for: how its payload reads, which operation it is, how the answer is written."""

    event: str
    payload: type[Payload]
    read: Callable[[Payload], Input]
    operation: Operation[Input, Output]
    render: Callable[[Output], msgspec.Struct]
    failure: str | None = None
    """The error code of what goes wrong in the operation; None: the error's own."""
    not_found: str | None = None
    """The code for an unknown id where it is not `failure`."""
    invalid: str | None = None
    """The code for values that the operation refuses, where it is not `failure`."""
    broadcasts: tuple[str, ...] = ()
    """What every client hears when it succeeds."""
    answers_as: str = ""
    """The event whose result this one answers on, if not its own."""
    spelling: Mapping[str, str] = field(default_factory=dict)
    """What the operation calls a field -> what the client did."""
    about: str = ""
    """One sentence for the reader of the docs, where the operation's name is not enough."""

    @property
    def answer(self) -> type[msgspec.Struct]:
        found: type[msgspec.Struct] = get_type_hints(self.render)["return"]
        return found

    async def run(self, context: Context, request: Input) -> msgspec.Struct:
        return self.render(await self.operation(context, request))


@dataclass(frozen=True, slots=True)
class ConnectionCall:
    """Something a client may ask of its own connection; the dialect answers it itself."""

    event: str
    payload: type[Any]
    answer: type[msgspec.Struct]
    about: str
    broadcasts: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ServerEvent:
    """Something clients are sent without having asked."""

    event: str
    data: type[msgspec.Struct]
    about: str


@dataclass(frozen=True, slots=True)
class Dialect:
    """All of one namespace."""

    title: str
    namespace: str
    path: str
    calls: tuple[Call[Any, Any, Any] | ConnectionCall, ...]
    emissions: tuple[ServerEvent, ...]
    codes: Mapping[str, str]
    """Error code -> what it means."""
    unexpected: str
    """The code of what is nobody's fault but ours."""
    overloaded: str
    not_found: str
    by_event: Mapping[str, Call[Any, Any, Any] | ConnectionCall] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "by_event", {call.event: call for call in self.calls})

    def code(self, call: Call[Any, Any, Any], error: ServiceError) -> str:
        """The error code for what an operation raised."""
        own = error.socket_code if error.socket_code in self.codes else None
        if isinstance(error, NotFound):
            return own or call.not_found or call.failure or self.not_found
        if isinstance(error, PresetInvalid):
            return own or call.invalid or call.failure or INVALID_REQUEST
        if isinstance(error, InvalidInput):
            return call.invalid or call.failure or INVALID_REQUEST
        return own or call.failure or self.unexpected


def nothing(request: Callable[[], Input]) -> Callable[[Nothing], Input]:
    """How a request without fields reads."""
    return lambda _: request()
