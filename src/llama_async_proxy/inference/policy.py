"""Who may load, who leaves for it, and whose turn is over. Pure: who waits and what is loaded go in, a plan comes out.

Models that cannot be loaded together take turns. A model's turn begins when it is ready. While others wait for its
place, it goes on admitting requests until a moment that lets each of them come up within the fairness bound of its
arrival (`closing_times`); then newcomers queue, what runs ends, the next in line takes the place, and all that has
queued for that one is served together. So a waiting model is overtaken for `fairness_s` at most; loading, and ending
what runs, come on top. A busy model never leaves, nor does a pinned one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from math import ceil
from typing import TypeAlias


@dataclass(frozen=True, slots=True)
class Resident:
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


@dataclass(frozen=True, slots=True)
class Waiter:
    """A model somebody waits for."""

    model_id: int
    since_s: float
    """Arrival of the request that has waited longest."""
    priority: int = 0
    """Higher goes first, until somebody has waited for the fairness bound."""


@dataclass(frozen=True, slots=True)
class Limits:
    max_models: int
    """0: no limit."""
    fairness_s: float


@dataclass(frozen=True, slots=True)
class Admission:
    """It may load as soon as these models, in this order, have left."""

    evictions: tuple[int, ...] = ()


class Wait(Enum):
    """Why not yet, for people."""

    FOR_UNLOAD = "a place is being made free"
    FOR_BUSY = "every place is taken by a model that is answering"
    FOR_TURN = "other models come first"


@dataclass(frozen=True, slots=True)
class Refusal:
    """Waiting cannot help: every place is held by a pinned model."""


Decision: TypeAlias = Admission | Wait | Refusal


@dataclass(frozen=True, slots=True)
class Plan:
    admitted: tuple[int, ...] = ()
    """Models whose waiting requests go ahead now."""
    evictions: tuple[int, ...] = ()
    refused: tuple[int, ...] = ()
    waits: Mapping[int, Wait] = field(default_factory=dict)
    """The other waiting models, next in line first."""
    closed: frozenset[int] = frozenset()
    """Ready models that admit no newcomers, so that others get their turn."""
    next_s: float | None = None
    """When time alone will change the plan."""


def may_load(target: int, residents: Iterable[Resident], max_models: int) -> Decision:
    """Whether `target` may be loaded, and what has to leave for it: of the idle models, the one unused for longest.

    A resident target needs no place: nothing leaves for it, even while there are too many.
    """
    present = tuple(residents)
    own = next((resident for resident in present if resident.model_id == target), None)
    if own is not None and not own.leaving:
        return Admission()
    excess = len(present) + 1 - max_models if max_models else 0
    needed = excess - sum(resident.leaving for resident in present)
    if needed <= 0:
        return Admission() if excess <= 0 and own is None else Wait.FOR_UNLOAD
    movable = [resident for resident in present if not (resident.pinned or resident.leaving)]
    if len(movable) < needed:
        return Refusal()
    idle = sorted((r for r in movable if not r.busy), key=lambda r: (r.last_used_s, r.model_id))
    if len(idle) < needed:
        return Wait.FOR_BUSY
    return Admission(tuple(resident.model_id for resident in idle[:needed]))


def in_line(waiters: Iterable[Waiter], now_s: float, fairness_s: float) -> tuple[Waiter, ...]:
    """In the order in which they get places: overdue ones first, then by priority; the longest wait decides."""

    def key(waiter: Waiter) -> tuple[bool, int, float]:
        overdue = now_s >= waiter.since_s + fairness_s
        return not overdue, 0 if overdue else -waiter.priority, waiter.since_s

    return tuple(sorted(waiters, key=key))


def closing_times(residents: Iterable[Resident], blocked: Sequence[Waiter], fairness_s: float) -> dict[int, float]:
    """Until when each model that answers may admit newcomers, given who waits for a place, next in line first.

    The time a waiter has left is shared evenly between the turns before its own.
    """
    places = [resident for resident in residents if not resident.pinned]
    turns = [(waiter, ceil(position / len(places))) for position, waiter in enumerate(blocked, 1) if places]
    return {
        r.model_id: min(r.turn_s + _share(waiter, r.turn_s, fairness_s) / count for waiter, count in turns)
        for r in places
        if turns and r.turn_s is not None and not r.leaving
    }


def _share(waiter: Waiter, turn_s: float, fairness_s: float) -> float:
    """Seconds that the turns before a waiter's may take together, of which the first began at `turn_s`.

    A turn that began before the waiter came is no longer than one that began after.
    """
    return max(0.0, min(fairness_s, waiter.since_s + fairness_s - turn_s))


def plan(waiters: Iterable[Waiter], residents: Iterable[Resident], limits: Limits, now_s: float) -> Plan:
    """What to do now. Asked again after every change, and at `next_s`."""
    present = tuple(residents)
    settled = {resident.model_id for resident in present if not resident.leaving}
    line = in_line(waiters, now_s, limits.fairness_s)
    decisions, evictions = _decisions([w for w in line if w.model_id not in settled], present, limits.max_models)
    blocked = [w for w in line if decisions.get(w.model_id) is Wait.FOR_BUSY]
    times = closing_times(present, blocked, limits.fairness_s)
    closed = frozenset(model_id for model_id, at_s in times.items() if at_s <= now_s)
    for waiter in line:
        if waiter.model_id in settled:
            stays = waiter.model_id in closed or waiter.model_id in evictions
            decisions[waiter.model_id] = Wait.FOR_TURN if stays else Admission()
    return Plan(
        admitted=tuple(w.model_id for w in line if isinstance(decisions[w.model_id], Admission)),
        evictions=evictions,
        refused=tuple(w.model_id for w in line if isinstance(decisions[w.model_id], Refusal)),
        waits={w.model_id: why for w in line if isinstance(why := decisions[w.model_id], Wait)},
        closed=closed,
        next_s=min((at_s for at_s in times.values() if at_s > now_s), default=None),
    )


def _decisions(
    line: Iterable[Waiter], residents: Iterable[Resident], max_models: int
) -> tuple[dict[int, Decision], tuple[int, ...]]:
    """One for each model that needs a place, and who leaves. Who comes first has its place reserved before the rest."""
    projected = list(residents)
    decisions: dict[int, Decision] = {}
    evictions: list[int] = []
    for waiter in line:
        decision = may_load(waiter.model_id, projected, max_models)
        if isinstance(decision, Admission) and decision.evictions:
            evictions += decision.evictions
            projected = [replace(r, leaving=True) if r.model_id in decision.evictions else r for r in projected]
            decision = Wait.FOR_UNLOAD
        if not isinstance(decision, Refusal):
            projected.append(Resident(waiter.model_id, waiter.since_s, busy=True))
        decisions[waiter.model_id] = decision
    return decisions, tuple(evictions)


def expired(residents: Iterable[Resident], now_s: float, idle_ttl_s: float) -> tuple[int, ...]:
    """Ids of the models unused for `idle_ttl_s` seconds (0: never), to be unloaded."""
    if idle_ttl_s == 0:
        return ()
    return tuple(
        r.model_id for r in residents if not (r.busy or r.pinned or r.leaving) and now_s - r.last_used_s >= idle_ttl_s
    )
