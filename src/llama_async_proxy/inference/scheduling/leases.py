"""Leases: which requests use which model, and waiting until they end."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterator

from llama_async_proxy.errors import ServiceError, Unavailable
from llama_async_proxy.inference.scheduling.policy import Constraint
from llama_async_proxy.records.models import Model
from llama_async_proxy.records.runtime import Endpoint

Revoke = Callable[[ServiceError], None]
"""Ends the request that holds a lease; the argument is the error for its client."""

_REVOKE_GRACE_S = 1.0
"""Time for revoked requests to close their connections, so that llama-server does not wait for them when it stops."""
_FORCE_CHECK_S = 0.1


def ignore_revocation(_: ServiceError) -> None:
    """`Revoke` of a lease without a request, such as an explicit load."""


class Lease:
    """One request's claim on a model. The model is not evicted while the lease is held."""

    __slots__ = ("_endpoint", "admission", "load_s", "model", "queued_s", "revoke")

    def __init__(self, model: Model, revoke: Revoke = ignore_revocation) -> None:
        self.model = model
        self.revoke = revoke
        self.admission: asyncio.Future[ServiceError | Constraint | None] | None = None
        """Done when the request has left the queue: None when admitted, else the reason for the refusal. The attribute
        is None when the request never queued. An error is a result, not an exception, because its reader may be gone.
        """
        self.queued_s: float | None = None
        """Seconds in the queue; None when the model was ready."""
        self.load_s: float | None = None
        """Seconds of waiting for the load itself; None when the model was ready."""
        self._endpoint: Endpoint | None = None

    @property
    def endpoint(self) -> Endpoint:
        """Address of the model's server. Raises RuntimeError before the lease is granted."""
        if self._endpoint is None:
            raise RuntimeError("the lease has not been granted yet")
        return self._endpoint

    @property
    def is_granted(self) -> bool:
        """False while the request waits for its model."""
        return self._endpoint is not None

    def grant(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint


def end_wait(lease: Lease, refusal: ServiceError | Constraint | None = None) -> None:
    """Set the result of the lease's wait, unless its client has left or its time has run out at this moment."""
    if lease.admission is not None and not lease.admission.done():
        lease.admission.set_result(refusal)


class Leases:
    """All leases of all models. To be used in the event loop's thread only."""

    def __init__(self) -> None:
        self.requests: set[Lease] = set()
        """Leases of all requests, waiting or running."""
        self._held: dict[int, set[Lease]] = {}
        """Leases by id of a model that has its place. An explicit load holds one, too."""
        self._last_used_s: dict[int, float] = {}
        self._changed = asyncio.Event()
        self._is_awaited = False
        """True while a task waits for the next end. Most leases end with no task waiting, and must stay cheap."""

    def __contains__(self, model_id: int) -> bool:
        """True while a lease on the model is held."""
        return model_id in self._held

    def __iter__(self) -> Iterator[int]:
        """Ids of the models on which leases are held."""
        return iter(self._held)

    def count(self, model_id: int) -> int:
        """Number of leases held on the model."""
        return len(self._held.get(model_id, ()))

    def hold(self, lease: Lease) -> None:
        """Hold the lease: its model has a place now. Holding it twice changes nothing."""
        held = self._held.get(lease.model.id)
        if held is None:
            held = self._held[lease.model.id] = set()
            self._last_used_s[lease.model.id] = time.monotonic()
        held.add(lease)

    def end(self, lease: Lease) -> bool:
        """Drop the lease because its request has ended. Returns False when the lease was not held."""
        self.requests.discard(lease)
        lease.revoke = ignore_revocation  # Breaks the cycle between request and lease; else each becomes garbage.
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
        """Monotonic time of the last use. A model without any use counts as used at `now_s` from this call on."""
        return self._last_used_s.setdefault(model_id, now_s)

    def forget_use(self, model_id: int) -> None:
        """Drop the time of the model's last use, because it was unloaded."""
        self._last_used_s.pop(model_id, None)

    # --- ending -----------------------------------------------------------------------------------

    def revoke_all(self, reason: str) -> None:
        """End every request, waiting or running, with an error that gives the reason."""
        for lease in tuple(self.requests):
            lease.revoke(Unavailable(reason))

    async def drain(self, limit_s: float, force: Callable[[], bool]) -> None:
        """Wait until no request is left, for at most `limit_s` seconds and until `force` returns True."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(limit_s):
                while self.requests and not force():
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(_FORCE_CHECK_S):
                            await self._wait_for_end()

    async def drain_model(self, model_id: int, drain_s: float) -> None:
        """Wait until no request runs on the model. Requests that still run after `drain_s` seconds are revoked."""
        if await self._is_drained(model_id, drain_s):
            return
        for lease in self._running(model_id):
            lease.revoke(Unavailable(f"Model {lease.model.slug!r} was unloaded."))
        await self._is_drained(model_id, _REVOKE_GRACE_S)

    async def _is_drained(self, model_id: int, limit_s: float) -> bool:
        """True once no request runs on the model; False when one still runs after `limit_s` seconds."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(limit_s):
                while self._running(model_id):
                    await self._wait_for_end()
        return not self._running(model_id)

    def _running(self, model_id: int) -> tuple[Lease, ...]:
        """Leases whose requests run on the model. Requests that wait for its load need no draining."""
        return tuple(lease for lease in self._held.get(model_id, ()) if lease.is_granted)

    async def _wait_for_end(self) -> None:
        """Wait until the next lease ends."""
        self._is_awaited = True
        await self._changed.wait()
