"""Which models are loaded, and who uses them: loads on request, evicts, unloads what is idle, counts what runs.

    request -> lease -> [queue until its model has a place, or its next turn] -> load -> granted

Residency alone decides to load and unload, by the plan of `policy`; the engine only does it. All state belongs to the
event loop's thread and changes between two awaits; `run` evicts, and acts when time alone changes the plan.
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
from llama_async_proxy.inference import policy
from llama_async_proxy.inference.lease import Lease, Revoke, ignore, resolve
from llama_async_proxy.inference.memory import UNKNOWN_MEMORY, Memory, groups_of, taken, together
from llama_async_proxy.inference.priority import HIGHEST_PRIORITY
from llama_async_proxy.inference.queue import Queue, Terms
from llama_async_proxy.records import (
    IDLE_TTL,
    NO_MEMORY,
    NO_OPTIONS,
    Endpoint,
    LaunchSpec,
    MemoryUse,
    Model,
    ModelRuntime,
    ModelStatus,
    OptionValue,
    QueueState,
)
from llama_async_proxy.settings import Settings

_ANSWERING = (ModelStatus.READY, ModelStatus.SLEEPING)
_BREAK_OFF_S = 1.0
"""For revoked requests to close their connections: llama-server stops at once without them, late with them."""
_HURRY_CHECK_S = 0.1
_IDLE_CHECK_S = 5.0
"""Longest between two looks for idle models; shorter when the time to live is."""
_LOAD_PRIORITY = HIGHEST_PRIORITY + 1
"""An explicit load goes before requests: somebody asked for just that, and watches."""


class Engine(Protocol):
    """What residency needs of an engine."""

    def runtime(self, model_id: int) -> ModelRuntime: ...
    def runtimes(self) -> tuple[ModelRuntime, ...]: ...
    async def load(self, spec: LaunchSpec) -> ModelRuntime: ...
    async def unload(self, model_id: int, *, drain_s: float = 10.0) -> ModelRuntime: ...


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
        self._requests: set[Lease] = set()
        """Of every request, waiting or running."""
        self._leases: dict[int, set[Lease]] = {}
        """Those whose model has its place, by model; an explicit load claims one, too."""
        self._last_used_s: dict[int, float] = {}
        self._leaving: set[int] = set()
        """Models being unloaded: nobody new may join them."""
        self._queue: Queue[Lease] = Queue()
        self._foretold: dict[int, MemoryUse] = {}
        """What the loads of models that have their place are expected to take."""
        self._plan = policy.Plan()
        self._evictions: list[int] = []
        """Planned, and about to begin."""
        self._turns: dict[int, float] = {}
        """Since when each model answers."""
        self._announced: dict[int, ModelRuntime] = {}
        """What was last published of models with a queue."""
        self._epoch_s = time.time() - time.monotonic()
        self._due = asyncio.Event()
        """There is something for `run` to do."""
        self._changed = asyncio.Event()
        self._is_awaited = False
        """Somebody waits for the next change: most requests come and go unnoticed."""

    # --- what others ask --------------------------------------------------------------------------

    def loaded(self) -> tuple[int, ...]:
        """Ids of the models that answer or are coming up."""
        statuses = (*_ANSWERING, ModelStatus.LOADING)
        return tuple(runtime.model_id for runtime in self._engine.runtimes() if runtime.status in statuses)

    def is_ready(self, model: Model) -> bool:
        """True when a lease would be granted at once."""
        return model.id not in self._plan.closed and self._endpoint(model.id) is not None

    def in_flight(self, model_id: int) -> int:
        """Requests that run on a model or wait for its load."""
        return len(self._leases.get(model_id, ()))

    def positions(self) -> dict[Revoke, int]:
        """Of each waiting request in its model's line, counted from 1, by what breaks it off."""
        return {lease.revoke: n for model_id in self._queue for n, lease in enumerate(self._queue.line(model_id), 1)}

    def runtime(self, model_id: int) -> ModelRuntime:
        """The engine's, and who waits for the model: QUEUED while it has no process but a queue."""
        runtime = self._engine.runtime(model_id)
        queue = self._queue_state(model_id)
        if queue is None:
            return runtime
        if runtime.status.in_use:
            return replace(runtime, queue=queue)
        return ModelRuntime(model_id, ModelStatus.QUEUED, queue=queue)

    def runtimes(self) -> tuple[ModelRuntime, ...]:
        """Of every model that is not UNLOADED."""
        ids = dict.fromkeys(runtime.model_id for runtime in self._engine.runtimes())
        return tuple(self.runtime(model_id) for model_id in ids | dict.fromkeys(self._queue))

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
            self._release(lease)

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
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(limit_s):
                while self._requests and not hurry():
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(_HURRY_CHECK_S):
                            await self._change()

    def break_off(self, reason: str = "The service is stopping.") -> None:
        """End every request, waiting or running, with an error that says why."""
        for lease in tuple(self._requests):
            lease.revoke(Unavailable(reason))

    @contextlib.asynccontextmanager
    async def lease(self, model: Model, revoke: Revoke = ignore, priority: int = 0) -> AsyncIterator[Lease]:
        """Hold a running model for one request, loading it if the settings allow. Residency calls `revoke` when the
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
        self._requests.add(lease)
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
        self._requests.add(lease)
        self._grant(lease, endpoint)
        return lease

    def release(self, lease: Lease) -> None:
        """The request has ended."""
        self._requests.discard(lease)
        self._release(lease)
        if self._is_awaited:
            self._wake()

    async def run(self) -> None:
        """Evict, unload idle models, and notice what changes by itself, until cancelled."""
        self._leaving.clear()  # should a fault have ended an earlier run before it could
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._watch())
            while True:
                self._settle()
                self._announce()
                for model_id in (*self._evictions, *self._expired()):
                    self._leaving.add(model_id)
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
        self._hold(lease)
        lease.grant(endpoint)
        self._used(lease.model.id, time.time_ns() // 1_000_000)

    def _endpoint(self, model_id: int) -> Endpoint | None:
        if model_id in self._leaving:
            return None
        runtime = self._engine.runtime(model_id)
        return runtime.endpoint if runtime.status in _ANSWERING else None

    def _check_may_load(self, model: Model) -> None:
        if not self._settings().load_on_request and not self._is_resident(model.id):
            raise InvalidInput("model", f"{model.slug!r} is not loaded, and loading on request is off; load it first")

    def _hold(self, lease: Lease) -> None:
        leases = self._leases.get(lease.model.id)
        if leases is None:
            leases = self._leases[lease.model.id] = set()
            self._last_used_s[lease.model.id] = time.monotonic()
        leases.add(lease)

    def _release(self, lease: Lease) -> None:
        leases = self._leases.get(lease.model.id)
        if leases is None or lease not in leases:
            return
        leases.discard(lease)
        if not leases:
            del self._leases[lease.model.id]
        self._last_used_s[lease.model.id] = time.monotonic()
        if self._queue or self._announced:
            self._advance()
        if self._is_awaited:
            self._wake()

    # --- loading and waiting ----------------------------------------------------------------------

    async def _admit(self, lease: Lease, options: Mapping[str, OptionValue], terms: Terms) -> ModelRuntime:
        """Bring `lease`'s model up. From its admission on the lease is held, so that nothing evicts the model again."""
        began_s = time.monotonic()
        if self._has_place(lease.model.id):
            self._hold(lease)
        else:
            need = await self._memory.need(lease.model, self._spec_for(lease.model, options))
            await self._take_place(lease, replace(terms, memory=need))
        admitted_s = time.monotonic()
        lease.queued_s = admitted_s - began_s
        if self._engine.runtime(lease.model.id).status in _ANSWERING:
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
            self._hold(lease)
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
            pinned = (each for each in self._residents(time.monotonic()) if each.pinned and each.model_id != model.id)
            return self._memory.refusal(model, need, together(each.memory for each in pinned))
        if obstacle is policy.Obstacle.GROUP:
            return Overloaded(
                f"Model {model.slug!r} may not run beside a pinned model: a group in the settings says so."
            )
        places = self._settings().max_models
        return Overloaded(f"All {places} places are held by pinned models. Unload one, or raise the limit.")

    def _has_place(self, model_id: int) -> bool:
        """True when newcomers need not queue."""
        is_shut = model_id in self._leaving or model_id in self._plan.closed
        return self._is_resident(model_id) and not is_shut

    def _is_resident(self, model_id: int) -> bool:
        return model_id in self._leases or self._engine.runtime(model_id).status.in_use

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
        self._plan = plan = policy.plan(waiters, self._residents(now_s), self._limits(), now_s)
        self._foretold.update((w.model_id, w.memory) for w in waiters if w.model_id in plan.admitted)
        for model_id in plan.admitted:
            for lease in self._queue.take(model_id):
                self._hold(lease)
                resolve(lease)
        for model_id, obstacle in plan.refused.items():
            self._refuse(model_id, obstacle)
        self._leaving.update(plan.evictions)
        self._evictions += plan.evictions

    def _limits(self) -> policy.Limits:
        settings = self._settings()
        together, alone = self._memory.capacity()
        groups = groups_of(settings.groups, self._models()) if settings.groups else ()
        return policy.Limits(settings.max_models, settings.fairness_s, together, alone, groups)

    def _refuse(self, model_id: int, error: ServiceError | policy.Obstacle) -> None:
        for lease in self._queue.take(model_id):
            resolve(lease, error)

    def _residents(self, now_s: float) -> tuple[policy.Resident, ...]:
        runtimes = {runtime.model_id: runtime for runtime in self._engine.runtimes() if runtime.status.in_use}
        statuses = {model_id: runtime.status for model_id, runtime in runtimes.items()}
        self._turns = {
            model_id: self._turns.get(model_id, now_s) for model_id, status in statuses.items() if status in _ANSWERING
        }
        models = {model.id: model for model in self._models() if model.is_pinned or IDLE_TTL in model.options}
        return tuple(
            policy.Resident(
                model_id,
                self._last_used_s.setdefault(model_id, now_s),
                self._turns.get(model_id),
                # A load is never broken off to make room.
                busy=model_id in self._leases or statuses.get(model_id) not in _ANSWERING,
                pinned=model_id in models and models[model_id].is_pinned,
                leaving=model_id in self._leaving,
                memory=taken(runtimes.get(model_id), self._foretold.get(model_id, NO_MEMORY)),
                idle_ttl_s=self._idle_ttl_s(models.get(model_id)),
            )
            for model_id in statuses.keys() | self._leases.keys()
        )

    def _idle_ttl_s(self, model: Model | None) -> float:
        own = None if model is None else model.options.get(IDLE_TTL)
        return float(own) if isinstance(own, int | float) else self._settings().idle_ttl_s

    # --- unloading --------------------------------------------------------------------------------

    async def _unload(self, model_id: int, drain_s: float) -> ModelRuntime:
        self._leaving.add(model_id)
        try:
            await self._drain(model_id, drain_s)
            return await self._engine.unload(model_id, drain_s=0.0)
        finally:
            self._leaving.discard(model_id)
            self._last_used_s.pop(model_id, None)
            self._foretold.pop(model_id, None)
            self._advance()
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

    def _expired(self) -> tuple[int, ...]:
        now_s = time.monotonic()
        return policy.expired(self._residents(now_s), now_s)

    # --- changes ----------------------------------------------------------------------------------

    def _queue_state(self, model_id: int) -> QueueState | None:
        waits = self._plan.waits
        if model_id not in self._queue or model_id not in waits:
            return None
        return QueueState(
            position=1 + list(waits).index(model_id),
            requests=self._queue.length(model_id),
            reason=waits[model_id].value,
            since_ms=round(1000 * (self._epoch_s + self._queue.since_s(model_id))),
        )

    def _announce(self) -> None:
        """Publish how the queues have changed; what the engine does it publishes itself."""
        current = {model_id: self.runtime(model_id) for model_id in self._queue}
        for model_id in current.keys() | self._announced.keys():
            runtime = current.get(model_id) or self.runtime(model_id)
            previous = self._announced.get(model_id)
            if runtime == previous:
                continue
            if model_id not in current and model_id in self._leases and not runtime.status.in_use:
                current[model_id] = self._announced[model_id]  # its load is about to begin
                continue
            self._bus.publish(ModelRuntimeChanged(runtime, previous or self._engine.runtime(model_id)))
        self._announced = current

    async def _watch(self) -> None:
        with self._bus.subscribe(ModelRuntimeChanged, SettingsChanged) as changes:
            async for change in changes:
                if isinstance(change, ModelRuntimeChanged) and change.runtime.status is change.previous.status:
                    continue
                self._due.set()
                self._wake()

    def _pause_s(self) -> float:
        """Until time alone may have changed something."""
        now_s = time.monotonic()
        ttls_s = [resident.idle_ttl_s for resident in self._residents(now_s) if resident.idle_ttl_s]
        pause_s = min([_IDLE_CHECK_S, *(ttl_s / 4 for ttl_s in ttls_s)])
        if self._plan.next_s is None:
            return pause_s
        return min(pause_s, max(0.0, self._plan.next_s - now_s))

    async def _change(self) -> None:
        """Wait until something was released, unloaded or died."""
        self._is_awaited = True
        await self._changed.wait()

    def _wake(self) -> None:
        if self._is_awaited:
            self._is_awaited = False
            self._changed.set()
            self._changed = asyncio.Event()


async def _set_within(event: asyncio.Event, limit_s: float) -> None:
    """Return when `event` is set, at the latest after `limit_s` seconds."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(limit_s):
            await event.wait()
