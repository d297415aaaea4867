"""Who uses which model: every request, the leases that are held, and waiting for their end."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterator

from llama_async_proxy.errors import Unavailable
from llama_async_proxy.inference.scheduling.lease import Lease, ignore

_BREAK_OFF_S = 1.0
"""For revoked requests to close their connections: llama-server stops at once without them, late with them."""
_HURRY_CHECK_S = 0.1


class Leases:
    """Of all models. Belongs to the event loop's thread."""

    def __init__(self) -> None:
        self.requests: set[Lease] = set()
        """Of every request, waiting or running."""
        self._held: dict[int, set[Lease]] = {}
        """Those whose model has its place, by model; an explicit load holds one, too."""
        self._last_used_s: dict[int, float] = {}
        self._changed = asyncio.Event()
        self._is_awaited = False
        """Somebody waits for the next end: most requests come and go unnoticed."""

    def __contains__(self, model_id: int) -> bool:
        """Somebody holds a lease on the model."""
        return model_id in self._held

    def __iter__(self) -> Iterator[int]:
        """Ids of the models on which leases are held."""
        return iter(self._held)

    def count(self, model_id: int) -> int:
        return len(self._held.get(model_id, ()))

    def hold(self, lease: Lease) -> None:
        """Its model has its place. Again is not more."""
        held = self._held.get(lease.model.id)
        if held is None:
            held = self._held[lease.model.id] = set()
            self._last_used_s[lease.model.id] = time.monotonic()
        held.add(lease)

    def end(self, lease: Lease) -> bool:
        """What it was taken for has ended. False when it was not held."""
        self.requests.discard(lease)
        lease.revoke = ignore  # who can be broken off holds its lease, which held it: garbage after every request
        if self._is_awaited:
            self._is_awaited = False
            self._changed.set()
            self._changed = asyncio.Event()
        held = self._held.get(lease.model.id)
        if held is None or lease not in held:
            return False
        held.discard(lease)
        if not held:
            del self._held[lease.model.id]
        self._last_used_s[lease.model.id] = time.monotonic()
        return True

    def last_used_s(self, model_id: int, now_s: float) -> float:
        """On the monotonic clock; `now_s`, from now on, for a model that nobody has used."""
        return self._last_used_s.setdefault(model_id, now_s)

    def forget_use(self, model_id: int) -> None:
        self._last_used_s.pop(model_id, None)

    # --- ending -----------------------------------------------------------------------------------

    def break_off(self, reason: str) -> None:
        """End every request, waiting or running, with an error that says why."""
        for lease in tuple(self.requests):
            lease.revoke(Unavailable(reason))

    async def drain(self, limit_s: float, hurry: Callable[[], bool]) -> None:
        """Wait until no request is left, at most `limit_s` seconds and no longer once `hurry` says so."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(limit_s):
                while self.requests and not hurry():
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(_HURRY_CHECK_S):
                            await self._change()

    async def vacate(self, model_id: int, drain_s: float) -> None:
        """Wait until no request runs on the model; after `drain_s` seconds they are broken off."""
        if await self._is_vacant(model_id, drain_s):
            return
        for lease in self._running(model_id):
            lease.revoke(Unavailable(f"Model {lease.model.slug!r} was unloaded."))
        await self._is_vacant(model_id, _BREAK_OFF_S)

    async def _is_vacant(self, model_id: int, limit_s: float) -> bool:
        """True once no request runs on the model; False when some still does after `limit_s` seconds."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(limit_s):
                while self._running(model_id):
                    await self._change()
        return not self._running(model_id)

    def _running(self, model_id: int) -> tuple[Lease, ...]:
        """Leases whose requests are with the model; those waiting for its load need no draining."""
        return tuple(lease for lease in self._held.get(model_id, ()) if lease.is_granted)

    async def _change(self) -> None:
        """Wait for the next end."""
        self._is_awaited = True
        await self._changed.wait()
