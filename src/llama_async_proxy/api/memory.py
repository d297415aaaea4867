"""One budget for everything that clients have sent and that is still in memory: bodies of requests and packets."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Final, Self

from starlette.types import Scope

from llama_async_proxy.errors import Overloaded

MEMORY: Final = "llama_async_proxy.memory"
"""Key of the `MemoryHold` in the ASGI scope of a request, released when the request has been answered."""


class RequestMemory:
    """Counts bytes. For the event loop's thread only."""

    def __init__(self, limit: Callable[[], int]) -> None:
        """`limit` in bytes is asked each time, so that a change of the setting holds at once."""
        self._limit = limit
        self.used = 0

    def reserve(self, size: int) -> bool:
        """Count `size` bytes more, until `free`. False, and nothing counted, when they do not fit."""
        if self.used + size > self._limit():
            return False
        self.used += size
        return True

    def free(self, size: int) -> None:
        self.used -= size

    def hold(self) -> MemoryHold:
        return MemoryHold(self)


class MemoryHold:
    """The share of one request or packet; a context manager that releases it."""

    __slots__ = ("_size", "budget")

    def __init__(self, budget: RequestMemory) -> None:
        self.budget = budget
        self._size = 0

    def take(self, size: int) -> None:
        """Count `size` bytes more. Raises Overloaded, and counts nothing, when there is no room for them."""
        if not self.budget.reserve(size):
            raise Overloaded(
                "The requests that are being answered take all the memory there is for them (memory.requests); "
                "try again in a moment."
            )
        self._size += size

    def another(self) -> MemoryHold:
        """An empty hold of the same memory."""
        return MemoryHold(self.budget)

    def release(self) -> None:
        self.budget.free(self._size)
        self._size = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


def hold_of(scope: Scope) -> MemoryHold:
    """The hold of a request; one without a limit where nothing in front of the application made one."""
    hold: MemoryHold = scope.setdefault(MEMORY, RequestMemory(lambda: 1 << 62).hold())
    return hold
