"""The queue of requests: one line per model, first come first served within a priority. Pure."""

from __future__ import annotations

from bisect import insort
from collections.abc import Iterator
from itertools import count
from typing import Generic, TypeVar

from msgspec import Struct

from llama_async_proxy.inference.requests.priority import HIGHEST_PRIORITY
from llama_async_proxy.inference.scheduling.policy import Waiter
from llama_async_proxy.records.runtime import NO_MEMORY, MemoryUse

T = TypeVar("T")

LOAD_PRIORITY = HIGHEST_PRIORITY + 1
"""Explicit loads come before all requests, because a user asked for just that and waits for it."""


class LoadTerms(Struct, frozen=True):
    """Conditions under which a queued request wants its model loaded."""

    priority: int = 0
    memory: MemoryUse = NO_MEMORY
    """Memory that the load is expected to take, with the options that the request asks for."""
    forced: bool = False
    """True to load even if memory does not suffice."""


DEFAULT_TERMS = LoadTerms()


class _Entry(Struct, Generic[T], frozen=True):
    rank: tuple[int, int]
    """Negated priority, then a running number."""
    since_s: float
    item: T
    terms: LoadTerms


class Queue(Generic[T]):
    """Items that wait, by id of the model that they wait for. Items are compared by identity."""

    def __init__(self) -> None:
        self._lines: dict[int, list[_Entry[T]]] = {}
        self._numbers = count()

    def __bool__(self) -> bool:
        return bool(self._lines)

    def __contains__(self, model_id: int) -> bool:
        return model_id in self._lines

    def __iter__(self) -> Iterator[int]:
        """Ids of the models with at least one item."""
        return iter(self._lines)

    def length(self, model_id: int) -> int:
        return len(self._lines.get(model_id, ()))

    def add(self, model_id: int, item: T, now_s: float, terms: LoadTerms = DEFAULT_TERMS) -> None:
        """Insert an item behind all of the same priority and before all of a lower one."""
        entry = _Entry((-terms.priority, next(self._numbers)), now_s, item, terms)
        insort(self._lines.setdefault(model_id, []), entry, key=lambda other: other.rank)

    def discard(self, model_id: int, item: T) -> bool:
        """Remove one item. Returns False when it was not in the queue."""
        position = self.position(model_id, item)
        if position is None:
            return False
        line = self._lines[model_id]
        del line[position - 1]
        if not line:
            del self._lines[model_id]
        return True

    def line(self, model_id: int) -> tuple[T, ...]:
        """All items of a model, in order."""
        return tuple(entry.item for entry in self._lines.get(model_id, ()))

    def take(self, model_id: int) -> tuple[T, ...]:
        """Remove and return all items of a model, in order."""
        return tuple(entry.item for entry in self._lines.pop(model_id, ()))

    def position(self, model_id: int, item: T) -> int | None:
        """Place of the item in its line, counted from 1; None when it is not in the queue."""
        line = self._lines.get(model_id, ())
        return next((position for position, entry in enumerate(line, 1) if entry.item is item), None)

    def since_s(self, model_id: int) -> float:
        """Arrival of the item that has waited longest. Raises KeyError when the model has no items."""
        return min(entry.since_s for entry in self._lines[model_id])

    def waiters(self) -> tuple[Waiter, ...]:
        """One `Waiter` for each model: arrival of its longest wait, terms of the first item in its line."""
        return tuple(self._waiter(model_id, line) for model_id, line in self._lines.items())

    def _waiter(self, model_id: int, line: list[_Entry[T]]) -> Waiter:
        first = line[0].terms
        forced = any(entry.terms.forced for entry in line)
        return Waiter(model_id, self.since_s(model_id), first.priority, first.memory, forced)
