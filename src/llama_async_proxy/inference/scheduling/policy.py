"""Who may load, who leaves for it, and whose turn is over. Pure: who waits and what is loaded go in, a plan comes out.

Models that cannot be loaded together take turns. A model's turn begins when it is ready. While others wait for its
place, it goes on admitting requests until a moment that lets each of them come up within the fairness bound of its
arrival (`closing_times`); then newcomers queue, what runs ends, the next in line takes the place, and all that has
queued for that one is served together. So a waiting model is overtaken for `fairness_s` at most; loading, and ending
what runs, come on top. A busy model never leaves, nor does a pinned one.

What fits together is a matter of places (`max_models`), of memory and of groups: see `obstacle`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import TypeAlias

from llama_async_proxy.records.runtime import NO_MEMORY, MemoryUse


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A model that has a process now or is about to. Times are on any clock that only goes forward."""

    model_id: int
    last_used_s: float
    turn_s: float | None = None
    """Since when it answers; None while it loads."""
    busy: bool = False
    """Requests are running on it, or somebody waits for it to come up."""
    pinned: bool = False
    leaving: bool = False
    """It is being unloaded; its place will be free."""
    memory: MemoryUse = NO_MEMORY
    """What it takes: measured, or while it loads what was foretold; nothing where nobody knows."""
    idle_ttl_s: float = 0.0
    """Seconds without use after which it may go; 0: never."""


@dataclass(frozen=True, slots=True)
class Waiter:
    """A model somebody waits for."""

    model_id: int
    since_s: float
    """Arrival of the request that has waited longest."""
    priority: int = 0
    """Higher goes first, until somebody has waited for the fairness bound."""
    memory: MemoryUse = NO_MEMORY
    """What its load is expected to take."""
    forced: bool = False
    """Somebody insists, whatever it takes."""


@dataclass(frozen=True, slots=True)
class Capacity:
    """Bytes that may be taken. None: no limit, or none known."""

    host_bytes: int | None = None
    gpu_bytes: int | None = None
    """Of all GPUs."""
    gpus: tuple[int, ...] = ()
    """Of each GPU; empty where only the sum counts."""

    def holds(self, uses: Iterable[MemoryUse]) -> bool:
        present = tuple(uses)
        host, gpu = sum(use.host_bytes for use in present), sum(use.gpu_bytes for use in present)
        if any(sum(use.gpus[i] for use in present if i < len(use.gpus)) > each for i, each in enumerate(self.gpus)):
            return False
        return (self.host_bytes is None or host <= self.host_bytes) and (
            self.gpu_bytes is None or gpu <= self.gpu_bytes
        )


UNLIMITED = Capacity()


@dataclass(frozen=True, slots=True)
class Group:
    """Models that never run at the same time; or, `together`, with one another but with no other model."""

    models: frozenset[int]
    together: bool = False

    def parts(self, one: int, other: int) -> bool:
        members = (one in self.models) + (other in self.models)
        return members == (1 if self.together else 2)


@dataclass(frozen=True, slots=True)
class Limits:
    max_models: int
    """0: no limit."""
    fairness_s: float
    together: Capacity = UNLIMITED
    """What loaded models may take, all in all."""
    alone: Capacity = UNLIMITED
    """What a model may take that has the machine for itself, but for pinned ones."""
    groups: tuple[Group, ...] = ()

    def parts(self, one: int, other: int) -> bool:
        """A group keeps them from running at the same time."""
        return any(group.parts(one, other) for group in self.groups)


@dataclass(frozen=True, slots=True)
class Admission:
    """It may load as soon as these models, in this order, have left."""

    evictions: tuple[int, ...] = ()


class Wait(Enum):
    """Why not yet, for people."""

    FOR_UNLOAD = "a place is being made free"
    FOR_PLACE = "all places are taken by models that are answering"
    FOR_GROUP = "a model that its group keeps it from running with is answering"
    FOR_MEMORY = "the memory it needs is taken by models that are answering"
    FOR_TURN = "other models come first"


class Obstacle(Enum):
    """Why a model cannot run beside others."""

    PLACES = "places"
    GROUP = "group"
    MEMORY = "memory"


_FOR_BUSY: Mapping[Obstacle, Wait] = {
    Obstacle.PLACES: Wait.FOR_PLACE,
    Obstacle.GROUP: Wait.FOR_GROUP,
    Obstacle.MEMORY: Wait.FOR_MEMORY,
}


@dataclass(frozen=True, slots=True)
class Refusal:
    """Waiting cannot help: beside pinned models, or even alone, it does not fit."""

    obstacle: Obstacle


Decision: TypeAlias = Admission | Wait | Refusal


@dataclass(frozen=True, slots=True)
class Plan:
    admitted: tuple[int, ...] = ()
    """Models whose waiting requests go ahead now."""
    evictions: tuple[int, ...] = ()
    refused: Mapping[int, Obstacle] = field(default_factory=dict)
    waits: Mapping[int, Wait] = field(default_factory=dict)
    """The other waiting models, next in line first."""
    closed: frozenset[int] = frozenset()
    """Ready models that admit no newcomers, so that others get their turn."""
    next_s: float | None = None
    """When time alone will change the plan."""


def obstacle(target: Waiter, others: Sequence[LoadedModel], limits: Limits) -> Obstacle | None:
    """What keeps `target` from running beside `others`; None when nothing does.

    With only pinned models beside it, it may take what the machine has; else only what keeps it from swapping.
    """
    if limits.max_models and len(others) >= limits.max_models:
        return Obstacle.PLACES
    if any(limits.parts(target.model_id, other.model_id) for other in others):
        return Obstacle.GROUP
    uses = (target.memory, *(other.memory for other in others))
    if target.memory == NO_MEMORY or limits.together.holds(uses):
        return None
    is_alone = all(other.pinned and not other.leaving for other in others)
    return None if is_alone and (target.forced or limits.alone.holds(uses)) else Obstacle.MEMORY


def may_load(target: Waiter, loaded_models: Iterable[LoadedModel], limits: Limits) -> Decision:
    """Whether `target` may be loaded, and what has to leave for it: of the idle models, those unused for longest.

    A resident target needs no place: nothing leaves for it, even while there are too many.
    """
    present = tuple(loaded_models)
    own = next((resident for resident in present if resident.model_id == target.model_id), None)
    if own is not None and not own.leaving:
        return Admission()
    if own is None and obstacle(target, present, limits) is None:
        return Admission()
    staying = [resident for resident in present if not resident.leaving]
    if obstacle(target, staying, limits) is None:
        return Wait.FOR_UNLOAD
    if problem := obstacle(target, [resident for resident in staying if resident.pinned], limits):
        return Refusal(problem)
    if busy := obstacle(target, [resident for resident in staying if resident.pinned or resident.busy], limits):
        return _FOR_BUSY[busy]
    return Admission(_evictions(target, staying, limits))


def _evictions(target: Waiter, staying: Sequence[LoadedModel], limits: Limits) -> tuple[int, ...]:
    """Ids of the idle models that have to leave, unused for longest first. All of them would be enough."""

    def is_enough(gone: Sequence[LoadedModel]) -> bool:
        return obstacle(target, [resident for resident in staying if resident not in gone], limits) is None

    idle = sorted((r for r in staying if not (r.pinned or r.busy)), key=lambda r: (r.last_used_s, r.model_id))
    gone = next(idle[:n] for n in range(1, len(idle) + 1) if is_enough(idle[:n]))
    for spared in reversed(gone[:-1]):  # small ones may have been taken before one that is large enough
        fewer = [resident for resident in gone if resident is not spared]
        gone = fewer if is_enough(fewer) else gone
    return tuple(resident.model_id for resident in gone)


def in_line(waiters: Iterable[Waiter], now_s: float, fairness_s: float) -> tuple[Waiter, ...]:
    """In the order in which they get places: overdue ones first, then by priority; the longest wait decides."""

    def key(waiter: Waiter) -> tuple[bool, int, float]:
        overdue = now_s >= waiter.since_s + fairness_s
        return not overdue, 0 if overdue else -waiter.priority, waiter.since_s

    return tuple(sorted(waiters, key=key))


def closing_times(loaded_models: Iterable[LoadedModel], blocked: Sequence[Waiter], limits: Limits) -> dict[int, float]:
    """Until when each model that answers may admit newcomers, given who waits for a place, next in line first.

    The time a waiter has left is shared evenly between the turns before its own.
    """
    present = tuple(loaded_models)
    times: dict[int, float] = {}
    for waiter, turn in _turns(blocked, [resident for resident in present if resident.pinned], limits):
        for resident in _in_the_way(waiter, present, limits):
            if resident.turn_s is None or resident.leaving:
                continue
            at_s = resident.turn_s + _share(waiter, resident.turn_s, limits.fairness_s) / turn
            times[resident.model_id] = min(at_s, times.get(resident.model_id, at_s))
    return times


def _turns(blocked: Iterable[Waiter], pinned: Sequence[LoadedModel], limits: Limits) -> Iterator[tuple[Waiter, int]]:
    """How many turns end before each waiter's own begins: one, or more. Neighbours in line that fit together share."""
    turn, sharing = 1, list[LoadedModel]()
    for waiter in blocked:
        if sharing and obstacle(waiter, [*pinned, *sharing], limits):
            turn, sharing = turn + 1, []
        sharing.append(_promised(waiter))
        yield waiter, turn


def _in_the_way(waiter: Waiter, loaded_models: Sequence[LoadedModel], limits: Limits) -> Sequence[LoadedModel]:
    """Whose end would help: those a group keeps apart from it, where that is all; else every one."""
    movable = [resident for resident in loaded_models if not resident.pinned]
    rivals = [resident for resident in movable if limits.parts(waiter.model_id, resident.model_id)]
    rest = [resident for resident in loaded_models if resident not in rivals]
    return rivals if rivals and obstacle(waiter, rest, limits) is None else movable


def _promised(waiter: Waiter) -> LoadedModel:
    return LoadedModel(waiter.model_id, waiter.since_s, busy=True, memory=waiter.memory)


def _share(waiter: Waiter, turn_s: float, fairness_s: float) -> float:
    """Seconds that the turns before a waiter's may take together, of which the first began at `turn_s`.

    A turn that began before the waiter came is no longer than one that began after.
    """
    return max(0.0, min(fairness_s, waiter.since_s + fairness_s - turn_s))


def plan(waiters: Iterable[Waiter], loaded_models: Iterable[LoadedModel], limits: Limits, now_s: float) -> Plan:
    """What to do now. Asked again after every change, and at `next_s`."""
    present = tuple(loaded_models)
    settled = {resident.model_id for resident in present if not resident.leaving}
    line = in_line(waiters, now_s, limits.fairness_s)
    decisions, evictions = _decisions([w for w in line if w.model_id not in settled], present, limits)
    blocked = [w for w in line if decisions.get(w.model_id) in _FOR_BUSY.values()]
    times = closing_times(present, blocked, limits)
    closed = frozenset(model_id for model_id, at_s in times.items() if at_s <= now_s)
    for waiter in line:
        if waiter.model_id in settled:
            stays = waiter.model_id in closed or waiter.model_id in evictions
            decisions[waiter.model_id] = Wait.FOR_TURN if stays else Admission()
    return Plan(
        admitted=tuple(w.model_id for w in line if isinstance(decisions[w.model_id], Admission)),
        evictions=evictions,
        refused={w.model_id: no.obstacle for w in line if isinstance(no := decisions[w.model_id], Refusal)},
        waits={w.model_id: why for w in line if isinstance(why := decisions[w.model_id], Wait)},
        closed=closed,
        next_s=min((at_s for at_s in times.values() if at_s > now_s), default=None),
    )


def _decisions(
    line: Iterable[Waiter], loaded_models: Iterable[LoadedModel], limits: Limits
) -> tuple[dict[int, Decision], tuple[int, ...]]:
    """One for each model that needs a place, and who leaves. Who comes first has its place reserved before the rest."""
    projected = list(loaded_models)
    decisions: dict[int, Decision] = {}
    evictions: list[int] = []
    for waiter in line:
        decision = may_load(waiter, projected, limits)
        if isinstance(decision, Admission) and decision.evictions:
            evictions += decision.evictions
            projected = [replace(r, leaving=True) if r.model_id in decision.evictions else r for r in projected]
            decision = Wait.FOR_UNLOAD
        if not isinstance(decision, Refusal):
            projected.append(_promised(waiter))
        decisions[waiter.model_id] = decision
    return decisions, tuple(evictions)


def expired(loaded_models: Iterable[LoadedModel], now_s: float) -> tuple[int, ...]:
    """Ids of the models unused for as long as each may be, to be unloaded."""
    return tuple(
        r.model_id
        for r in loaded_models
        if r.idle_ttl_s and not (r.busy or r.pinned or r.leaving) and now_s - r.last_used_s >= r.idle_ttl_s
    )
