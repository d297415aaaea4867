"""Which models leave so that another may come. Pure.

A busy model never leaves, nor does a pinned one; of the others the one unused for longest goes first.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Resident:
    """A model that has a process now or is about to."""

    model_id: int
    last_used_s: float
    """On any clock that only goes forward."""
    busy: bool = False
    """Requests are running on it, or somebody waits for it to come up."""
    pinned: bool = False


@dataclass(frozen=True, slots=True)
class Refusal:
    """There is no room. `final` is True when waiting cannot help: every place is held by a pinned model."""

    final: bool


def evictions(target: int, residents: Iterable[Resident], max_models: int) -> tuple[int, ...] | Refusal:
    """Ids of the models to unload before `target` may be loaded, in order; `max_models` 0 is no limit.

    A resident target needs no place: nothing leaves for it, even while there are too many.
    """
    present = tuple(residents)
    excess = len(present) + 1 - max_models
    if max_models == 0 or excess <= 0 or any(resident.model_id == target for resident in present):
        return ()
    movable = [resident for resident in present if not resident.pinned]
    if len(movable) < excess:
        return Refusal(final=True)
    idle = sorted((r for r in movable if not r.busy), key=lambda r: (r.last_used_s, r.model_id))
    if len(idle) < excess:
        return Refusal(final=False)
    return tuple(resident.model_id for resident in idle[:excess])


def expired(residents: Iterable[Resident], now_s: float, idle_ttl_s: float) -> tuple[int, ...]:
    """Ids of the models unused for `idle_ttl_s` seconds (0: never), to be unloaded."""
    if idle_ttl_s == 0:
        return ()
    return tuple(r.model_id for r in residents if not (r.busy or r.pinned) and now_s - r.last_used_s >= idle_ttl_s)
