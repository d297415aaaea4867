"""Who waits for which model: one line per model, first come first served within a priority. Pure."""

from __future__ import annotations

from bisect import insort
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from typing import Generic, TypeVar

from llama_async_proxy.inference.scheduling.policy import Waiter
from llama_async_proxy.records.runtime import NO_MEMORY, MemoryUse

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Terms:
    """On which somebody waits."""

    priority: int = 0
    memory: MemoryUse = NO_MEMORY
    """What the load is expected to take that the first in line will ask for."""
    forced: bool = False


USUAL = Terms()


@dataclass(frozen=True, slots=True)
class _Entry(Generic[T]):
    rank: tuple[int, int]
    """Minus its priority, then its number."""
    since_s: float
    item: T
    terms: Terms


class Queue(Generic[T]):
    """Items are compared by identity."""

    def __init__(self) -> None:
        self._lines: dict[int, list[_Entry[T]]] = {}
        self._numbers = count()

    def __bool__(self) -> bool:
        return bool(self._lines)

    def __contains__(self, model_id: int) -> bool:
        return model_id in self._lines

    def __iter__(self) -> Iterator[int]:
        """Ids of the models somebody waits for."""
        return iter(self._lines)

    def length(self, model_id: int) -> int:
        return len(self._lines.get(model_id, ()))

    def add(self, model_id: int, item: T, now_s: float, terms: Terms = USUAL) -> None:
        """Behind all of the same priority, before all of a lower one."""
        entry = _Entry((-terms.priority, next(self._numbers)), now_s, item, terms)
        insort(self._lines.setdefault(model_id, []), entry, key=lambda other: other.rank)

    def discard(self, model_id: int, item: T) -> bool:
        """Take one out. False when it did not wait."""
        position = self.position(model_id, item)
        if position is None:
            return False
        line = self._lines[model_id]
        del line[position - 1]
        if not line:
            del self._lines[model_id]
        return True

    def line(self, model_id: int) -> tuple[T, ...]:
        """All that wait for a model, first in line first."""
        return tuple(entry.item for entry in self._lines.get(model_id, ()))

    def take(self, model_id: int) -> tuple[T, ...]:
        """Take out all that wait for a model, first in line first."""
        return tuple(entry.item for entry in self._lines.pop(model_id, ()))

    def position(self, model_id: int, item: T) -> int | None:
        """Its place in the line, counted from 1; None when it does not wait."""
        line = self._lines.get(model_id, ())
        return next((position for position, entry in enumerate(line, 1) if entry.item is item), None)

    def since_s(self, model_id: int) -> float:
        """When the one that has waited longest came. Raises KeyError when nobody waits."""
        return min(entry.since_s for entry in self._lines[model_id])

    def waiters(self) -> tuple[Waiter, ...]:
        """Each model as its longest wait and the first in its line make it."""
        return tuple(self._waiter(model_id, line) for model_id, line in self._lines.items())

    def _waiter(self, model_id: int, line: list[_Entry[T]]) -> Waiter:
        first = line[0].terms
        forced = any(entry.terms.forced for entry in line)
        return Waiter(model_id, self.since_s(model_id), first.priority, first.memory, forced)
