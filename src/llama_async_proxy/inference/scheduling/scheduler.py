"""Which models are loaded: loads on request, evicts, unloads what is idle.

    request -> lease -> [queue until its model has a place, or its next turn] -> load -> granted

The scheduler alone decides to load and unload, by the plan of `policy`; the engine only does it. All state (waiting
requests, leases, models that leave) belongs to the thread of the event loop; `run` evicts, and
acts when time alone changes the plan.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import replace
from math import ceil
from typing import Protocol

from llama_async_proxy.errors import DeadlineExceeded, InvalidInput, LoadFailed, Overloaded, ServiceError, Unavailable
from llama_async_proxy.events import EventBus, ModelRuntimeChanged, SettingsChanged
from llama_async_proxy.inference.requests.priority import HIGHEST_PRIORITY
from llama_async_proxy.inference.scheduling import policy
from llama_async_proxy.inference.scheduling.lease import Lease, Revoke, ignore, resolve
from llama_async_proxy.inference.scheduling.leases import Leases
from llama_async_proxy.inference.scheduling.memory import UNKNOWN_MEMORY, Memory, limits_of, together
from llama_async_proxy.inference.scheduling.model_states import ModelStates, Running
from llama_async_proxy.inference.scheduling.queue import Queue, Terms
from llama_async_proxy.inference.scheduling.snapshot import ANSWERING, LoadedModels
from llama_async_proxy.records.models import Model
from llama_async_proxy.records.options import NO_OPTIONS, OptionValue
from llama_async_proxy.records.runtime import Endpoint, LaunchSpec, MemoryUse, ModelRuntime, ModelStatus
from llama_async_proxy.settings import Settings

_IDLE_CHECK_S = 5.0
"""Longest between two looks for idle models; shorter when the time to live is."""
_LOAD_PRIORITY = HIGHEST_PRIORITY + 1
"""An explicit load goes before requests: somebody asked for just that, and watches."""


class Engine(Running, Protocol):
    """What scheduler needs of an engine."""

    async def load(self, spec: LaunchSpec) -> ModelRuntime: ...
    async def unload(self, model_id: int, *, drain_s: float = 10.0) -> ModelRuntime: ...


class ModelScheduler:
    def __init__(
        self,
        engine: Engine,
        *,
        settings: Callable[[], Settings],
        models: Callable[[], tuple[Model, ...]],
        spec_for: Callable[[Model, Mapping[str, OptionValue]], LaunchSpec],
        bus: EventBus,
        used: Callable[[int, int], None],
        memory: Memory = UNKNOWN_MEMORY,
    ) -> None:
        """`used` is told (model id, milliseconds since the epoch) whenever a request gets its model."""
        self._engine = engine
        self._settings = settings
        self._models = models
        self._spec_for = spec_for
        self._bus = bus
        self._used = used
        self._memory = memory
        self._queue: Queue[Lease] = Queue()
        self._leases = Leases()
        self._residents = LoadedModels(engine, self._leases, settings=settings, models=models)
        self._runtimes = ModelStates(engine, self._queue, self._leases, bus)
        self._plan = policy.Plan()
        self._evictions: list[int] = []
        """Planned, and about to begin."""
        self._due = asyncio.Event()
        """There is something for `run` to do."""

    # --- what others ask --------------------------------------------------------------------------

    def loaded(self) -> tuple[int, ...]:
        """Ids of the models that answer or are coming up."""
        statuses = (*ANSWERING, ModelStatus.LOADING)
        return tuple(runtime.model_id for runtime in self._engine.runtimes() if runtime.status in statuses)

    def is_ready(self, model: Model) -> bool:
        """True when a lease would be granted at once."""
        return model.id not in self._plan.closed and self._endpoint(model.id) is not None

    def in_flight(self, model_id: int) -> int:
        """Requests that run on a model or wait for its load."""
        return self._leases.count(model_id)

    def positions(self) -> dict[Revoke, int]:
        """Of each waiting request in its model's line, counted from 1, by what breaks it off."""
        return {lease.revoke: n for model_id in self._queue for n, lease in enumerate(self._queue.line(model_id), 1)}

    def runtime(self, model_id: int) -> ModelRuntime:
        """The engine's, and who waits for the model: QUEUED while it has no process but a queue."""
        return self._runtimes.of(model_id)

    def runtimes(self) -> tuple[ModelRuntime, ...]:
        """Of every model that is not UNLOADED."""
        return self._runtimes.all()

    async def load(
        self, model: Model, options: Mapping[str, OptionValue] = NO_OPTIONS, *, force: bool = False
    ) -> ModelRuntime:
        """Run a model, making room first. Idempotent; callers of one model share one load.

        Raises what the engine's load raises, NotEnoughMemory when the machine has less than it needs (not with
        `force`), Overloaded when every place is held by a pinned model or too many wait for this one, DeadlineExceeded
        when its turn did not come within the queue timeout, and Unavailable when it was unloaded while it waited.
        """
        if self._endpoint(model.id) is not None:
            return self._engine.runtime(model.id)
        lease = Lease(model)
        try:
            return await self._admit(lease, options, Terms(_LOAD_PRIORITY, forced=force))
        finally:
            self.release(lease)

    async def unload(self, model: Model) -> ModelRuntime:
        """Stop a model's process once its requests have ended; after the drain time they are broken off.

        A queued model leaves the queue, with an error to who waits for it.
        """
        if self.runtime(model.id).status is ModelStatus.QUEUED:
            self._refuse(model.id, Unavailable(f"Model {model.slug!r} was unloaded while it waited for its turn."))
            self._advance()
        return await self._unload(model.id, self._settings().drain_s)

    async def drain(self, limit_s: float, hurry: Callable[[], bool]) -> None:
        """Wait until no request is left, at most `limit_s` seconds and no longer once `hurry` says so."""
        await self._leases.drain(limit_s, hurry)

    def break_off(self, reason: str = "The service is stopping.") -> None:
        """End every request, waiting or running, with an error that says why."""
        self._leases.break_off(reason)

    @contextlib.asynccontextmanager
    async def lease(self, model: Model, revoke: Revoke = ignore, priority: int = 0) -> AsyncIterator[Lease]:
        """Hold a running model for one request, loading it if the settings allow. The scheduler calls `revoke` when the
        request must end although it still runs. Who waits with a higher priority goes first.

        A caller that is cancelled while it waits leaves no trace; a load that has begun goes on for others.
        Raises InvalidInput when the model is not loaded and loading on request is off; else as `load`.
        """
        lease = self.claim(model, revoke)
        if lease is not None:
            try:
                yield lease
            finally:
                self.release(lease)
            return
        lease = Lease(model, revoke)
        self._leases.requests.add(lease)
        try:
            yield await self._ready(lease, priority)
        finally:
            self.release(lease)

    def claim(self, model: Model, revoke: Revoke) -> Lease | None:
        """What `lease` gives when nothing has to be waited for, else None. To be given back by `release`."""
        endpoint = None if model.id in self._plan.closed else self._endpoint(model.id)
        if endpoint is None:
            return None
        lease = Lease(model, revoke)
        self._leases.requests.add(lease)
        self._grant(lease, endpoint)
        return lease

    def release(self, lease: Lease) -> None:
        """The request has ended."""
        if self._leases.end(lease) and (self._queue or self._runtimes.announced):
            self._advance()

    async def run(self) -> None:
        """Evict, unload idle models, and notice what changes by itself, until cancelled."""
        self._residents.leaving.clear()  # should a fault have ended an earlier run before it could
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._watch())
            while True:
                self._settle()
                self._runtimes.announce()
                for model_id in (*self._evictions, *self._expired()):
                    self._residents.leaving.add(model_id)
                    tasks.create_task(self._unload(model_id, 0.0))
                self._evictions.clear()
                self._due.clear()
                await _set_within(self._due, self._pause_s())

    # --- leases -----------------------------------------------------------------------------------

    async def _ready(self, lease: Lease, priority: int) -> Lease:
        model_id = lease.model.id
        endpoint = None if model_id in self._plan.closed else self._endpoint(model_id)
        if endpoint is None:
            self._check_may_load(lease.model)
            await self._admit(lease, NO_OPTIONS, Terms(priority))
            endpoint = self._endpoint(model_id)
            if endpoint is None:
                raise Unavailable(f"Model {lease.model.slug!r} stopped as soon as it was ready. Try again.")
        self._grant(lease, endpoint)
        return lease

    def _grant(self, lease: Lease, endpoint: Endpoint) -> None:
        self._leases.hold(lease)
        lease.grant(endpoint)
        self._used(lease.model.id, time.time_ns() // 1_000_000)

    def _endpoint(self, model_id: int) -> Endpoint | None:
        if model_id in self._residents.leaving:
            return None
        runtime = self._engine.runtime(model_id)
        return runtime.endpoint if runtime.status in ANSWERING else None

    def _check_may_load(self, model: Model) -> None:
        if not self._settings().load_on_request and model.id not in self._residents:
            raise InvalidInput("model", f"{model.slug!r} is not loaded, and loading on request is off; load it first")

    # --- loading and waiting ----------------------------------------------------------------------

    async def _admit(self, lease: Lease, options: Mapping[str, OptionValue], terms: Terms) -> ModelRuntime:
        """Bring `lease`'s model up. From its admission on the lease is held, so that nothing evicts the model again."""
        began_s = time.monotonic()
        if self._has_place(lease.model.id):
            self._leases.hold(lease)
        else:
            need = await self._memory.need(lease.model, self._spec_for(lease.model, options))
            await self._take_place(lease, replace(terms, memory=need))
        admitted_s = time.monotonic()
        lease.queued_s = admitted_s - began_s
        if self._engine.runtime(lease.model.id).status in ANSWERING:
            return self._engine.runtime(lease.model.id)
        runtime = await self._load(lease.model, self._spec_for(lease.model, options))
        lease.load_s = time.monotonic() - admitted_s
        return runtime

    async def _load(self, model: Model, spec: LaunchSpec) -> ModelRuntime:
        try:
            return await self._engine.load(spec)
        except LoadFailed as exc:
            smaller = await self._memory.smaller(model, spec, exc) if self._settings().memory_retry else None
            if smaller is None:
                raise
            return await self._engine.load(smaller)

    async def _take_place(self, lease: Lease, terms: Terms) -> None:
        """Join a model that has its place, else queue."""
        model_id = lease.model.id
        if self._has_place(model_id):
            self._leases.hold(lease)
            return
        place = self._enqueue(lease, terms)
        limit_s = self._settings().queue_timeout_s
        try:
            async with asyncio.timeout(limit_s):
                refusal = await place
        except TimeoutError:
            raise DeadlineExceeded(
                f"Model {lease.model.slug!r} waited {limit_s:g} s for its turn: other models are busy."
            ) from None
        finally:
            if self._queue.discard(model_id, lease):
                self._advance()
        if isinstance(refusal, policy.Obstacle):
            raise self._explained(lease.model, refusal, terms.memory)
        if refusal is not None:
            raise refusal

    def _explained(self, model: Model, obstacle: policy.Obstacle, need: MemoryUse) -> ServiceError:
        if obstacle is policy.Obstacle.MEMORY:
            loaded_models = self._residents.at(time.monotonic())
            pinned = (each for each in loaded_models if each.pinned and each.model_id != model.id)
            return self._memory.refusal(model, need, together(each.memory for each in pinned))
        if obstacle is policy.Obstacle.GROUP:
            return Overloaded(
                f"Model {model.slug!r} may not run beside a pinned model: a group in the settings says so."
            )
        places = self._settings().max_models
        return Overloaded(f"All {places} places are held by pinned models. Unload one, or raise the limit.")

    def _has_place(self, model_id: int) -> bool:
        """True when newcomers need not queue."""
        is_shut = model_id in self._residents.leaving or model_id in self._plan.closed
        return model_id in self._residents and not is_shut

    def _enqueue(self, lease: Lease, terms: Terms) -> asyncio.Future[ServiceError | policy.Obstacle | None]:
        settings, model_id, now_s = self._settings(), lease.model.id, time.monotonic()
        waiting = self._queue.length(model_id)
        if waiting >= settings.queue_limit:
            turn_s = self._queue.since_s(model_id) + settings.fairness_s - now_s
            raise Overloaded(
                f"{waiting} requests wait for model {lease.model.slug!r} already. Try again later.",
                retry_after_s=max(1, ceil(turn_s)),
            )
        lease.place = asyncio.get_running_loop().create_future()
        self._queue.add(model_id, lease, now_s, terms)
        self._advance()
        return lease.place

    def _advance(self) -> None:
        self._settle()
        self._due.set()

    def _settle(self) -> None:
        """Make a new plan and let those ahead whose turn has come. Evicting is left to `run`."""
        now_s, waiters = time.monotonic(), self._queue.waiters()
        limits = limits_of(self._settings(), self._models(), self._memory)
        self._plan = plan = policy.plan(waiters, self._residents.at(now_s), limits, now_s)
        self._runtimes.waits = plan.waits
        self._residents.foretold.update((w.model_id, w.memory) for w in waiters if w.model_id in plan.admitted)
        for model_id in plan.admitted:
            for lease in self._queue.take(model_id):
                self._leases.hold(lease)
                resolve(lease)
        for model_id, obstacle in plan.refused.items():
            self._refuse(model_id, obstacle)
        self._residents.leaving.update(plan.evictions)
        self._evictions += plan.evictions

    def _refuse(self, model_id: int, error: ServiceError | policy.Obstacle) -> None:
        for lease in self._queue.take(model_id):
            resolve(lease, error)

    # --- unloading --------------------------------------------------------------------------------

    async def _unload(self, model_id: int, drain_s: float) -> ModelRuntime:
        self._residents.leaving.add(model_id)
        try:
            await self._leases.vacate(model_id, drain_s)
            return await self._engine.unload(model_id, drain_s=0.0)
        finally:
            self._residents.forget(model_id)
            self._advance()

    def _expired(self) -> tuple[int, ...]:
        now_s = time.monotonic()
        return policy.expired(self._residents.at(now_s), now_s)

    # --- changes ----------------------------------------------------------------------------------

    async def _watch(self) -> None:
        with self._bus.subscribe(ModelRuntimeChanged, SettingsChanged) as changes:
            async for change in changes:
                if isinstance(change, ModelRuntimeChanged) and change.runtime.status is change.previous.status:
                    continue
                self._due.set()

    def _pause_s(self) -> float:
        """Until time alone may have changed something."""
        now_s = time.monotonic()
        ttls_s = [resident.idle_ttl_s for resident in self._residents.at(now_s) if resident.idle_ttl_s]
        pause_s = min([_IDLE_CHECK_S, *(ttl_s / 4 for ttl_s in ttls_s)])
        if self._plan.next_s is None:
            return pause_s
        return min(pause_s, max(0.0, self._plan.next_s - now_s))


async def _set_within(event: asyncio.Event, limit_s: float) -> None:
    """Return when `event` is set, at the latest after `limit_s` seconds."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(limit_s):
            await event.wait()
