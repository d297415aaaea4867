"""Scheduling policy: which models load, which are evicted, and when a busy model stops admitting requests.

Pure: the waiting models and the loaded models go in, a `Plan` comes out.

Models that cannot be loaded together take turns. A turn begins when the model is ready. While other models wait for
its place, the model admits new requests until its admission deadline (`admission_deadlines`). After the deadline it
is draining: new requests queue, running ones end, and the next model in the queue takes the place and serves all its
queued requests together. A waiting model is therefore overtaken for at most `fairness_s`; time for loading, and for
the running requests to end, comes on top. Busy models and pinned models are never evicted.

Three constraints decide which models fit together: places (`max_models`), memory, and groups (`violated_constraint`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from enum import Enum
from typing import TypeAlias

from msgspec import Struct, field
from msgspec.structs import replace

from llama_async_proxy.records.runtime import NO_MEMORY, MemoryUse


class LoadedModel(Struct, frozen=True):
    """A model that has a process, or is about to get one. Times are seconds of any monotonic clock."""

    model_id: int
    last_used_s: float
    ready_since_s: float | None = None
    """When the model became ready; None while it loads."""
    busy: bool = False
    """True while requests run on the model or wait for its load."""
    pinned: bool = False
    unloading: bool = False
    """True while the model is being unloaded; its place becomes free."""
    memory: MemoryUse = NO_MEMORY
    """Memory measured or, while the model loads, estimated. NO_MEMORY when unknown."""
    idle_ttl_s: float = 0.0
    """Seconds without use after which the model is unloaded; 0 means never."""


class Waiter(Struct, frozen=True):
    """A model for which at least one request is queued."""

    model_id: int
    since_s: float
    """Arrival of the request that has waited longest, in seconds of the monotonic clock."""
    priority: int = 0
    """Higher goes first, until another waiter has waited for the fairness bound."""
    memory: MemoryUse = NO_MEMORY
    """Memory that the load is expected to take."""
    forced: bool = False
    """True when a caller asked to load the model even if memory does not suffice."""


class Capacity(Struct, frozen=True):
    """Bytes that loaded models may take. None means no limit, or an unknown one."""

    host_bytes: int | None = None
    gpu_bytes: int | None = None
    """Sum over all GPUs."""
    gpus: tuple[int, ...] = ()
    """Limit of each GPU; empty when only the sum counts."""

    def fits(self, uses: Iterable[MemoryUse]) -> bool:
        """True when the uses together stay within every limit."""
        present = tuple(uses)
        host, gpu = sum(use.host_bytes for use in present), sum(use.gpu_bytes for use in present)
        if any(sum(use.gpus[i] for use in present if i < len(use.gpus)) > each for i, each in enumerate(self.gpus)):
            return False
        return (self.host_bytes is None or host <= self.host_bytes) and (
            self.gpu_bytes is None or gpu <= self.gpu_bytes
        )


UNLIMITED = Capacity()


class Group(Struct, frozen=True):
    """Models that never run at the same time or, with `together`, run only with one another."""

    models: frozenset[int]
    together: bool = False

    def separates(self, one: int, other: int) -> bool:
        """True when the group keeps the two models from running at the same time."""
        members = (one in self.models) + (other in self.models)
        return members == (1 if self.together else 2)


class Limits(Struct, frozen=True):
    max_models: int
    """Largest number of loaded models; 0 means no limit."""
    fairness_s: float
    """Seconds for which a waiting model may be overtaken."""
    shared: Capacity = UNLIMITED
    """Memory that all loaded models may take together."""
    exclusive: Capacity = UNLIMITED
    """Memory that one model may take when only pinned models are loaded beside it."""
    groups: tuple[Group, ...] = ()

    def separates(self, one: int, other: int) -> bool:
        """True when a group keeps the two models from running at the same time."""
        return any(group.separates(one, other) for group in self.groups)


class Admission(Struct, frozen=True):
    """The model may load as soon as these models, in this order, have been unloaded."""

    evictions: tuple[int, ...] = ()


class WaitReason(Enum):
    """Reason why a queued model does not load yet, as shown to users."""

    FOR_UNLOAD = "a place is being made free"
    FOR_PLACE = "all places are taken by models that are answering"
    FOR_GROUP = "a model that its group keeps it from running with is answering"
    FOR_MEMORY = "the memory it needs is taken by models that are answering"
    FOR_TURN = "other models come first"


class Constraint(Enum):
    """Reason why a model cannot run beside others."""

    PLACES = "places"
    GROUP = "group"
    MEMORY = "memory"


_FOR_BUSY: Mapping[Constraint, WaitReason] = {
    Constraint.PLACES: WaitReason.FOR_PLACE,
    Constraint.GROUP: WaitReason.FOR_GROUP,
    Constraint.MEMORY: WaitReason.FOR_MEMORY,
}


class Refusal(Struct, frozen=True):
    """Waiting cannot help: the model does not fit beside the pinned models, or not even alone."""

    constraint: Constraint


Decision: TypeAlias = Admission | WaitReason | Refusal


class Plan(Struct, frozen=True):
    """Decisions for all waiting and loaded models at one moment."""

    admitted: tuple[int, ...] = ()
    """Ids of the models whose queued requests proceed now."""
    evictions: tuple[int, ...] = ()
    """Ids of the models to unload."""
    refused: Mapping[int, Constraint] = field(default_factory=dict)
    """Models that can never load as things are, with the reason."""
    waits: Mapping[int, WaitReason] = field(default_factory=dict)
    """The other waiting models, next in the queue first."""
    draining: frozenset[int] = frozenset()
    """Ready models past their admission deadline: new requests for them queue."""
    next_s: float | None = None
    """Next admission deadline, when the plan changes without any event; None when there is none."""


def violated_constraint(target: Waiter, others: Sequence[LoadedModel], limits: Limits) -> Constraint | None:
    """Constraint that keeps `target` from running beside `others`, or None.

    Beside pinned models alone the target may take `limits.exclusive`, else the smaller `limits.shared`, which keeps the
    machine from swapping.
    """
    if limits.max_models and len(others) >= limits.max_models:
        return Constraint.PLACES
    if any(limits.separates(target.model_id, other.model_id) for other in others):
        return Constraint.GROUP
    uses = (target.memory, *(other.memory for other in others))
    if target.memory == NO_MEMORY or limits.shared.fits(uses):
        return None
    is_alone = all(other.pinned and not other.unloading for other in others)
    return None if is_alone and (target.forced or limits.exclusive.fits(uses)) else Constraint.MEMORY


def may_load(target: Waiter, loaded_models: Iterable[LoadedModel], limits: Limits) -> Decision:
    """Decide whether `target` may load, and which idle models (least recently used first) are evicted for it.

    A target that is loaded already needs no place: no model is evicted for it, even when too many are loaded.
    """
    present = tuple(loaded_models)
    own = next((loaded for loaded in present if loaded.model_id == target.model_id), None)
    if own is not None and not own.unloading:
        return Admission()
    if own is None and violated_constraint(target, present, limits) is None:
        return Admission()
    staying = [loaded for loaded in present if not loaded.unloading]
    if violated_constraint(target, staying, limits) is None:
        return WaitReason.FOR_UNLOAD
    if problem := violated_constraint(target, [loaded for loaded in staying if loaded.pinned], limits):
        return Refusal(problem)
    if busy := violated_constraint(target, [r for r in staying if r.pinned or r.busy], limits):
        return _FOR_BUSY[busy]
    return Admission(_evictions(target, staying, limits))


def _evictions(target: Waiter, staying: Sequence[LoadedModel], limits: Limits) -> tuple[int, ...]:
    """Ids of the idle models to evict, least recently used first. Evicting all idle models must be enough."""

    def is_enough(gone: Sequence[LoadedModel]) -> bool:
        return violated_constraint(target, [loaded for loaded in staying if loaded not in gone], limits) is None

    idle = sorted((r for r in staying if not (r.pinned or r.busy)), key=lambda r: (r.last_used_s, r.model_id))
    gone = next(idle[:n] for n in range(1, len(idle) + 1) if is_enough(idle[:n]))
    for spared in reversed(gone[:-1]):  # A small model may precede one that is large enough alone.
        fewer = [loaded for loaded in gone if loaded is not spared]
        gone = fewer if is_enough(fewer) else gone
    return tuple(loaded.model_id for loaded in gone)


def queue_order(waiters: Iterable[Waiter], now_s: float, fairness_s: float) -> tuple[Waiter, ...]:
    """Waiters in the order in which they get places: overdue ones first, then by priority, then by arrival."""

    def key(waiter: Waiter) -> tuple[bool, int, float]:
        overdue = now_s >= waiter.since_s + fairness_s
        return not overdue, 0 if overdue else -waiter.priority, waiter.since_s

    return tuple(sorted(waiters, key=key))


def admission_deadlines(
    loaded_models: Iterable[LoadedModel], blocked: Sequence[Waiter], limits: Limits
) -> dict[int, float]:
    """Moment, by model id, until which each ready model may admit requests. `blocked` is in the order of the queue.

    The time that a waiter has left is shared evenly between the turns before its own.
    """
    present = tuple(loaded_models)
    times: dict[int, float] = {}
    for waiter, turn in _turns(blocked, [loaded for loaded in present if loaded.pinned], limits):
        for loaded in _blockers(waiter, present, limits):
            if loaded.ready_since_s is None or loaded.unloading:
                continue
            at_s = loaded.ready_since_s + _turn_budget_s(waiter, loaded.ready_since_s, limits.fairness_s) / turn
            times[loaded.model_id] = min(at_s, times.get(loaded.model_id, at_s))
    return times


def _turns(blocked: Iterable[Waiter], pinned: Sequence[LoadedModel], limits: Limits) -> Iterator[tuple[Waiter, int]]:
    """Number of turns that end before each waiter's own, at least 1. Neighbours that fit together share a turn."""
    turn, sharing = 1, list[LoadedModel]()
    for waiter in blocked:
        if sharing and violated_constraint(waiter, [*pinned, *sharing], limits):
            turn, sharing = turn + 1, []
        sharing.append(_reserved(waiter))
        yield waiter, turn


def _blockers(waiter: Waiter, loaded_models: Sequence[LoadedModel], limits: Limits) -> Sequence[LoadedModel]:
    """Models that must drain for the waiter: its group's rivals when no other constraint is violated, else all."""
    movable = [loaded for loaded in loaded_models if not loaded.pinned]
    rivals = [loaded for loaded in movable if limits.separates(waiter.model_id, loaded.model_id)]
    rest = [loaded for loaded in loaded_models if loaded not in rivals]
    return rivals if rivals and violated_constraint(waiter, rest, limits) is None else movable


def _reserved(waiter: Waiter) -> LoadedModel:
    """The waiter as a loaded model, to reserve its place."""
    return LoadedModel(waiter.model_id, waiter.since_s, busy=True, memory=waiter.memory)


def _turn_budget_s(waiter: Waiter, ready_since_s: float, fairness_s: float) -> float:
    """Seconds that the turns before the waiter's own may take together. The first of them began at `ready_since_s`.

    A turn that began before the waiter arrived does not last longer than one that began afterwards.
    """
    return max(0.0, min(fairness_s, waiter.since_s + fairness_s - ready_since_s))


def plan(waiters: Iterable[Waiter], loaded_models: Iterable[LoadedModel], limits: Limits, now_s: float) -> Plan:
    """Decide what happens now. To be called again after every change, and at `next_s`."""
    present = tuple(loaded_models)
    staying_ids = {loaded.model_id for loaded in present if not loaded.unloading}
    ordered = queue_order(waiters, now_s, limits.fairness_s)
    decisions, evictions = _decisions([w for w in ordered if w.model_id not in staying_ids], present, limits)
    blocked = [w for w in ordered if decisions.get(w.model_id) in _FOR_BUSY.values()]
    deadlines = admission_deadlines(present, blocked, limits)
    draining = frozenset(model_id for model_id, at_s in deadlines.items() if at_s <= now_s)
    for waiter in ordered:
        if waiter.model_id in staying_ids:
            must_wait = waiter.model_id in draining or waiter.model_id in evictions
            decisions[waiter.model_id] = WaitReason.FOR_TURN if must_wait else Admission()
    return Plan(
        admitted=tuple(w.model_id for w in ordered if isinstance(decisions[w.model_id], Admission)),
        evictions=evictions,
        refused={w.model_id: no.constraint for w in ordered if isinstance(no := decisions[w.model_id], Refusal)},
        waits={w.model_id: why for w in ordered if isinstance(why := decisions[w.model_id], WaitReason)},
        draining=draining,
        next_s=min((at_s for at_s in deadlines.values() if at_s > now_s), default=None),
    )


def _decisions(
    waiters: Iterable[Waiter], loaded_models: Iterable[LoadedModel], limits: Limits
) -> tuple[dict[int, Decision], tuple[int, ...]]:
    """Decision for each waiter that needs a place, and ids to evict. Places are reserved in the order of the queue."""
    projected = list(loaded_models)
    decisions: dict[int, Decision] = {}
    evictions: list[int] = []
    for waiter in waiters:
        decision = may_load(waiter, projected, limits)
        if isinstance(decision, Admission) and decision.evictions:
            evictions += decision.evictions
            projected = [replace(r, unloading=True) if r.model_id in decision.evictions else r for r in projected]
            decision = WaitReason.FOR_UNLOAD
        if not isinstance(decision, Refusal):
            projected.append(_reserved(waiter))
        decisions[waiter.model_id] = decision
    return decisions, tuple(evictions)


def expired(loaded_models: Iterable[LoadedModel], now_s: float) -> tuple[int, ...]:
    """Ids of the models to unload because they were not used for their `idle_ttl_s`."""
    return tuple(
        r.model_id
        for r in loaded_models
        if r.idle_ttl_s and not (r.busy or r.pinned or r.unloading) and now_s - r.last_used_s >= r.idle_ttl_s
    )
