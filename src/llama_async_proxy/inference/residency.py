"""Which models are loaded, and who uses them: loads on request, evicts, unloads what is idle, counts what runs.

    request -> lease -> [wait until an unload of it has ended] -> [wait for a place, first come first served] -> load

Residency alone decides to load and unload; the engine only does it. All state belongs to the event loop's thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Protocol

from llama_async_proxy.errors import DeadlineExceeded, InvalidInput, Overloaded, ServiceError, Unavailable
from llama_async_proxy.events import EventBus, ModelRuntimeChanged
from llama_async_proxy.inference import policy
from llama_async_proxy.records import (
    NO_OPTIONS,
    Endpoint,
    LaunchSpec,
    Model,
    ModelRuntime,
    ModelStatus,
    OptionValue,
)
from llama_async_proxy.settings import Settings

logger = logging.getLogger(__name__)
_ANSWERING = (ModelStatus.READY, ModelStatus.SLEEPING)
_BREAK_OFF_S = 1.0
"""For revoked requests to close their connections: llama-server stops at once without them, late with them."""
_HURRY_CHECK_S = 0.1
_IDLE_CHECK_S = 5.0
"""Longest between two looks for idle models; shorter when the time to live is."""

Revoke = Callable[[ServiceError], None]
"""Breaks off the request that holds a lease, with what to tell its client."""


def _ignore(_: ServiceError) -> None:
    """For claims with no request behind them."""


class Engine(Protocol):
    """What residency needs of an engine."""

    def runtime(self, model_id: int) -> ModelRuntime: ...
    def runtimes(self) -> tuple[ModelRuntime, ...]: ...
    async def load(self, spec: LaunchSpec) -> ModelRuntime: ...
    async def unload(self, model_id: int, *, drain_s: float = 10.0) -> ModelRuntime: ...


class Lease:
    """One request's claim on a model; while it is held the model is not evicted."""

    def __init__(self, model: Model, revoke: Revoke = _ignore) -> None:
        self.model = model
        self.revoke = revoke
        self.queued_s: float | None = None
        """Time waited for a place; None when the model was ready."""
        self.load_s: float | None = None
        """Time waited for the load itself; None when the model was ready."""
        self._endpoint: Endpoint | None = None

    @property
    def endpoint(self) -> Endpoint:
        """Where to send the request."""
        if self._endpoint is None:
            raise RuntimeError("the lease has not been granted yet")
        return self._endpoint

    @property
    def is_granted(self) -> bool:
        """False while the request waits for its model."""
        return self._endpoint is not None

    def grant(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint


class Residency:
    def __init__(
        self,
        engine: Engine,
        *,
        settings: Callable[[], Settings],
        models: Callable[[], tuple[Model, ...]],
        spec_for: Callable[[Model, Mapping[str, OptionValue]], LaunchSpec],
        bus: EventBus,
        used: Callable[[int, int], None],
    ) -> None:
        """`used` is told (model id, milliseconds since the epoch) whenever a request gets its model."""
        self._engine = engine
        self._settings = settings
        self._models = models
        self._spec_for = spec_for
        self._bus = bus
        self._used = used
        self._requests: set[Lease] = set()
        """Of every request, waiting or running."""
        self._leases: dict[int, set[Lease]] = {}
        """Those whose model has its place, by model; an explicit load claims one, too."""
        self._last_used_s: dict[int, float] = {}
        self._leaving: set[int] = set()
        """Models being unloaded: nobody new may join them."""
        self._admission = asyncio.Lock()
        """Who holds it decides what leaves for whom; asyncio's lock is first come, first served."""
        self._changed = asyncio.Event()

    # --- what others ask --------------------------------------------------------------------------

    def loaded(self) -> tuple[int, ...]:
        """Ids of the models that answer or are coming up."""
        statuses = (*_ANSWERING, ModelStatus.LOADING)
        return tuple(runtime.model_id for runtime in self._engine.runtimes() if runtime.status in statuses)

    def is_ready(self, model: Model) -> bool:
        """True when a lease would be granted at once."""
        return self._endpoint(model.id) is not None

    def in_flight(self, model_id: int) -> int:
        """Requests that run on a model or wait for its load."""
        return len(self._leases.get(model_id, ()))

    async def load(self, model: Model, options: Mapping[str, OptionValue] = NO_OPTIONS) -> ModelRuntime:
        """Run a model, making room first. Idempotent; callers of one model share one load.

        Raises what the engine's load raises, Overloaded when every place is held by a pinned model, and
        DeadlineExceeded when no place became free within the load timeout.
        """
        lease = Lease(model)
        try:
            return await self._admit(lease, options)
        finally:
            self._release(lease)

    async def unload(self, model: Model) -> ModelRuntime:
        """Stop a model's process once its requests have ended; after the drain time they are broken off."""
        return await self._unload(model.id, self._settings().drain_s)

    async def drain(self, limit_s: float, hurry: Callable[[], bool]) -> None:
        """Wait until no request is left, at most `limit_s` seconds and no longer once `hurry` says so."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(limit_s):
                while self._requests and not hurry():
                    await self._change_within(_HURRY_CHECK_S)

    def break_off(self) -> None:
        """End every request, waiting or running, with an error."""
        for lease in tuple(self._requests):
            lease.revoke(Unavailable("The service is stopping."))

    @contextlib.asynccontextmanager
    async def lease(self, model: Model, revoke: Revoke = _ignore) -> AsyncIterator[Lease]:
        """Hold a running model for one request, loading it if the settings allow. Residency calls `revoke` when the
        request must end although it still runs.

        A caller that is cancelled while it waits leaves no trace; a load that has begun goes on for others.
        Raises InvalidInput when the model is not loaded and loading on request is off; else as `load`.
        """
        lease = Lease(model, revoke)
        self._requests.add(lease)
        try:
            yield await self._ready(lease)
        finally:
            self._requests.discard(lease)
            self._release(lease)
            self._wake()

    async def run(self) -> None:
        """Unload idle models and notice places that become free by themselves, until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._watch_runtimes())
            tasks.create_task(self._unload_idle())

    # --- leases -----------------------------------------------------------------------------------

    async def _ready(self, lease: Lease) -> Lease:
        model_id = lease.model.id
        endpoint = self._endpoint(model_id)
        if endpoint is None:
            self._check_may_load(lease.model)
            await self._admit(lease, NO_OPTIONS)
            endpoint = self._endpoint(model_id)
            if endpoint is None:
                raise Unavailable(f"Model {lease.model.slug!r} stopped as soon as it was ready. Try again.")
        self._hold(lease)
        lease.grant(endpoint)
        self._touch(model_id)
        self._used(model_id, time.time_ns() // 1_000_000)
        return lease

    def _endpoint(self, model_id: int) -> Endpoint | None:
        if model_id in self._leaving:
            return None
        runtime = self._engine.runtime(model_id)
        return runtime.endpoint if runtime.status in _ANSWERING else None

    def _check_may_load(self, model: Model) -> None:
        if not self._settings().load_on_request and not self._has_place(model.id):
            raise InvalidInput("model", f"{model.slug!r} is not loaded, and loading on request is off; load it first")

    def _hold(self, lease: Lease) -> None:
        self._leases.setdefault(lease.model.id, set()).add(lease)

    def _release(self, lease: Lease) -> None:
        leases = self._leases.get(lease.model.id)
        if leases is None or lease not in leases:
            return
        leases.discard(lease)
        if not leases:
            del self._leases[lease.model.id]
        self._touch(lease.model.id)
        self._wake()

    def _touch(self, model_id: int) -> None:
        self._last_used_s[model_id] = time.monotonic()

    # --- loading ----------------------------------------------------------------------------------

    async def _admit(self, lease: Lease, options: Mapping[str, OptionValue]) -> ModelRuntime:
        """Bring `lease`'s model up. From its admission on the lease is held, so that nothing evicts the model again."""
        began_s = time.monotonic()
        limit_s = self._settings().load_timeout_s
        try:
            async with asyncio.timeout(limit_s):
                await self._take_place(lease)
        except TimeoutError:
            raise DeadlineExceeded(
                f"Model {lease.model.slug!r} waited {limit_s:g} s for a place: all loaded models are busy."
            ) from None
        admitted_s = time.monotonic()
        lease.queued_s = admitted_s - began_s
        runtime = await self._engine.load(self._spec_for(lease.model, options))
        lease.load_s = time.monotonic() - admitted_s
        return runtime

    async def _take_place(self, lease: Lease) -> None:
        model_id = lease.model.id
        while True:
            while model_id in self._leaving:
                await self._change()
            if self._has_place(model_id):
                return self._hold(lease)
            async with self._admission:
                await self._make_room(model_id)
                if model_id not in self._leaving:
                    return self._hold(lease)

    def _has_place(self, model_id: int) -> bool:
        return model_id in self._leases or self._engine.runtime(model_id).status.in_use

    async def _make_room(self, target: int) -> None:
        """Until `target` may be loaded: unload what has to leave, wait while all of it is busy."""
        while True:
            limit = self._settings().max_models
            decision = policy.evictions(target, self._residents(), limit)
            if isinstance(decision, policy.Refusal):
                if decision.final:
                    raise Overloaded(f"All {limit} places are held by pinned models. Unload one, or raise the limit.")
                await self._change()
            elif not decision:
                return
            else:
                for model_id in decision:
                    await self._unload(model_id, 0.0)

    def _residents(self) -> list[policy.Resident]:
        pinned = {model.id for model in self._models() if model.is_pinned}
        statuses = {runtime.model_id: runtime.status for runtime in self._engine.runtimes() if runtime.status.in_use}
        now_s = time.monotonic()
        return [
            policy.Resident(
                model_id,
                self._last_used_s.setdefault(model_id, now_s),
                busy=(
                    model_id in self._leases
                    or model_id in self._leaving
                    or statuses.get(model_id) not in _ANSWERING  # a load is never broken off to make room
                ),
                pinned=model_id in pinned,
            )
            for model_id in statuses.keys() | self._leases.keys()
        ]

    # --- unloading --------------------------------------------------------------------------------

    async def _unload(self, model_id: int, drain_s: float) -> ModelRuntime:
        self._leaving.add(model_id)
        try:
            await self._drain(model_id, drain_s)
            return await self._engine.unload(model_id, drain_s=0.0)
        finally:
            self._leaving.discard(model_id)
            self._last_used_s.pop(model_id, None)
            self._wake()

    async def _drain(self, model_id: int, drain_s: float) -> None:
        if await self._ended(model_id, drain_s):
            return
        for lease in self._running(model_id):
            lease.revoke(Unavailable(f"Model {lease.model.slug!r} was unloaded."))
        await self._ended(model_id, _BREAK_OFF_S)

    async def _ended(self, model_id: int, limit_s: float) -> bool:
        """True once no request runs on the model; False when some still does after `limit_s` seconds."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(limit_s):
                while self._running(model_id):
                    await self._change()
        return not self._running(model_id)

    def _running(self, model_id: int) -> tuple[Lease, ...]:
        """Leases whose requests are with the model; those waiting for its load need no draining."""
        return tuple(lease for lease in self._leases.get(model_id, ()) if lease.is_granted)

    async def _unload_idle(self) -> None:
        while True:
            ttl_s = self._settings().idle_ttl_s
            for model_id in policy.expired(self._residents(), time.monotonic(), ttl_s):
                if model_id not in self._leases:
                    await self._unload_quietly(model_id)
            await asyncio.sleep(min(_IDLE_CHECK_S, ttl_s / 4) if ttl_s else _IDLE_CHECK_S)

    async def _unload_quietly(self, model_id: int) -> None:
        try:
            await self._unload(model_id, 0.0)
        except ServiceError as error:
            logger.warning("Unloading idle model %d failed: %s", model_id, error.message)

    # --- changes ----------------------------------------------------------------------------------

    async def _watch_runtimes(self) -> None:
        with self._bus.subscribe(ModelRuntimeChanged) as changes:
            async for change in changes:
                if isinstance(change, ModelRuntimeChanged) and change.runtime.status is not change.previous.status:
                    self._wake()

    def _change(self) -> Awaitable[bool]:
        """Wait until something was released, unloaded or died."""
        return self._changed.wait()

    async def _change_within(self, limit_s: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(limit_s):
                await self._change()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()
