"""An operation: a function that every way in may run by name, and the effect that access is checked by."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from enum import StrEnum
from functools import cache
from typing import Any, Generic, TypeVar, get_type_hints

from msgspec import Struct

from llama_async_proxy.operations.context import Context

Input = TypeVar("Input")
Output = TypeVar("Output")


class Effect(StrEnum):
    """What a caller must be allowed before an operation runs. A key or a role is a set of effects."""

    READ = "read"
    """See the service's state."""
    CHAT = "chat"
    """Have conversations, and read and change one's own."""
    INFERENCE = "inference"
    """Send requests to models."""
    MANAGE = "manage"
    """Load and unload models, scan, change models and presets, start and stop the engine."""
    ADMIN = "admin"
    """Change settings, keys and people; delete logs."""
    OWNER = "owner"
    """Choose what programs run, what files are written, what is downloaded, and where the service listens."""


class Operation(Struct, Generic[Input, Output], frozen=True):
    """Call an operation like the function that it was made of: `await list_models(context, ListModels())`."""

    name: str
    """Subject and verb, such as "models.list"; the name on `/ui` and in the docs."""
    effect: Effect
    run: Callable[[Context, Input], Awaitable[Output]]

    async def __call__(self, context: Context, request: Input) -> Output:
        return await self.run(context, request)

    @property
    def input(self) -> type[Input]:
        return _signature(self.run)[0]

    @property
    def output(self) -> type[Output]:
        return _signature(self.run)[1]


def operation(
    name: str, effect: Effect
) -> Callable[[Callable[[Context, Input], Awaitable[Output]]], Operation[Input, Output]]:
    """Declare a function to be an operation. Its annotations say what the operation takes and gives."""

    def declare(run: Callable[[Context, Input], Awaitable[Output]]) -> Operation[Input, Output]:
        return Operation(name, effect, run)

    return declare


@cache
def _signature(run: Callable[..., Any]) -> tuple[type[Any], type[Any]]:
    """Types of an operation's input and output. Resolving all of them at import would delay the service's start."""
    _, given, returned = get_type_hints(run).values()
    return given, returned
