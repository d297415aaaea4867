"""The model scheduler: loads models on request, evicts models to make room, and unloads idle ones.

    request -> lease -> [queue until its model has a place, or its next turn] -> load -> granted

Only the scheduler decides to load and unload, by the plan of `policy`; the engine carries it out. All state (queue,
leases, models being unloaded) belongs to the event loop's thread. The task `run` evicts, and acts when the passing of
time alone changes the plan.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Protocol

from msgspec.structs import replace

from llama_async_proxy.errors import InvalidInput, LoadFailed, Unavailable
from llama_async_proxy.events import EventBus, ModelRuntimeChanged, SettingsChanged
from llama_async_proxy.inference.scheduling.admission import AdmissionControl
from llama_async_proxy.inference.scheduling.leases import Lease, Leases, Revoke, ignore_revocation
from llama_async_proxy.inference.scheduling.model_states import ModelStates
from llama_async_proxy.inference.scheduling.queue import LOAD_PRIORITY, LoadTerms
from llama_async_proxy.inference.scheduling.snapshot import ANSWERING, LoadedModels, RuntimeSource, SchedulerContext
from llama_async_proxy.records.models import Model
from llama_async_proxy.records.options import NO_OPTIONS, OptionValue
from llama_async_proxy.records.runtime import Endpoint, LaunchSpec, ModelRuntime, ModelStatus

_IDLE_CHECK_S = 5.0
"""Longest interval between two checks for idle models; shorter when a time to live is short."""


class ModelEngine(RuntimeSource, Protocol):
    """Part of an engine that the scheduler uses."""

    async def load(self, spec: LaunchSpec) -> ModelRuntime: ...
    async def unload(self, model_id: int, *, drain_s: float = 10.0) -> ModelRuntime: ...


class ModelScheduler:
    """Decides which models are loaded, and hands out leases on them."""

    def __init__(self, engine: ModelEngine, context: SchedulerContext, bus: EventBus) -> None:
        self._engine = engine
        self._context = context
        self._bus = bus
        self._leases = Leases()
        self._loaded_models = LoadedModels(engine, self._leases, context)
        self._admission = AdmissionControl(self._loaded_models, self._leases, context)
        self._states = ModelStates(engine, self._admission, bus)

    # --- questions --------------------------------------------------------------------------------

    def loaded(self) -> tuple[int, ...]:
        """Ids of the models that are ready or loading."""
        statuses = (*ANSWERING, ModelStatus.LOADING)
        return tuple(runtime.model_id for runtime in self._engine.runtimes() if runtime.status in statuses)

    def is_ready(self, model: Model) -> bool:
        """True when a lease would be granted at once."""
        return self._admitting_endpoint(model.id) is not None

    def in_flight(self, model_id: int) -> int:
        """Number of requests that run on a model or wait for its load."""
        return self._leases.count(model_id)

    def queue_positions(self) -> dict[Revoke, int]:
        """Position of each queued request in its model's line, counted from 1, by the `revoke` of its lease."""
        queue = self._admission.queue
        return {lease.revoke: n for model_id in queue for n, lease in enumerate(queue.line(model_id), 1)}

    def runtime(self, model_id: int) -> ModelRuntime:
        """The engine's state with the model's queue. QUEUED when the model has a queue and no process."""
        return self._states.of(model_id)

    def runtimes(self) -> tuple[ModelRuntime, ...]:
        """States of all models that are not UNLOADED."""
        return self._states.all()

    # --- loading and unloading --------------------------------------------------------------------

    async def load(
        self, model: Model, options: Mapping[str, OptionValue] = NO_OPTIONS, *, force: bool = False
    ) -> ModelRuntime:
        """Load a model, making room first. Idempotent; all callers for one model share one load.

        Raises what the engine's load raises, NotEnoughMemory when the machine has less than the model needs (not with
        `force`), Overloaded when pinned models hold every place or the model's queue is full, DeadlineExceeded when
        the model got no place within the queue timeout, and Unavailable when it was unloaded while it waited.
        """
        if self._endpoint(model.id) is not None:
            return self._engine.runtime(model.id)
        lease = Lease(model)
        try:
            return await self._bring_up(lease, options, LoadTerms(LOAD_PRIORITY, forced=force))
        finally:
            self.release(lease)

    async def unload(self, model: Model) -> ModelRuntime:
        """Stop a model's process once its requests have ended. Requests that outlast the drain time are revoked.

        A queued model leaves the queue, and each of its waiting requests gets an error.
        """
        if self.runtime(model.id).status is ModelStatus.QUEUED:
            reason = Unavailable(f"Model {model.slug!r} was unloaded while it waited for its turn.")
            self._admission.refuse(model.id, reason)
            self._admission.replan_and_wake()
        return await self._unload(model.id, self._context.settings().drain_s)

    async def drain(self, limit_s: float, force: Callable[[], bool]) -> None:
        """Wait until no request is left, for at most `limit_s` seconds and until `force` returns True."""
        await self._leases.drain(limit_s, force)

    def revoke_all(self, reason: str = "The service is stopping.") -> None:
        """End every request, waiting or running, with an error that gives the reason."""
        self._leases.revoke_all(reason)

    # --- leases -----------------------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def lease(self, model: Model, revoke: Revoke = ignore_revocation, priority: int = 0) -> AsyncIterator[Lease]:
        """Hold a ready model for one request, loading it if the settings allow.

        Requests with a higher priority leave the queue first.
        The scheduler calls `revoke` when the request has to end although it still runs. A caller that is cancelled
        while it waits leaves no trace; a load that has begun goes on for others.
        Raises InvalidInput when the model is not loaded and loading on request is off; else as `load`.
        """
        lease = self.try_lease(model, revoke)
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

    def try_lease(self, model: Model, revoke: Revoke) -> Lease | None:
        """Lease a model that is ready now; None when the request would have to wait. `release` ends the lease."""
        endpoint = self._admitting_endpoint(model.id)
        if endpoint is None:
            return None
        lease = Lease(model, revoke)
        self._leases.requests.add(lease)
        self._grant(lease, endpoint)
        return lease

    def release(self, lease: Lease) -> None:
        """End a lease because its request has ended."""
        if self._leases.end(lease) and (self._admission.queue or self._states.published):
            self._admission.replan_and_wake()

    # --- the scheduler's task ---------------------------------------------------------------------

    async def run(self) -> None:
        """Evict models, unload idle ones, and follow changes of models and settings, until cancelled."""
        self._loaded_models.unloading.clear()  # An earlier run may have ended before its unloads did.
        evictions, wake = self._admission.evictions, self._admission.wake
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._watch())
            while True:
                self._admission.replan()
                self._states.publish_changes()
                for model_id in (*evictions, *self._loaded_models.expired(time.monotonic())):
                    self._loaded_models.unloading.add(model_id)
                    tasks.create_task(self._unload(model_id, 0.0))
                evictions.clear()
                wake.clear()
                await _wait_for(wake, self._pause_s())

    async def _watch(self) -> None:
        with self._bus.subscribe(ModelRuntimeChanged, SettingsChanged) as changes:
            async for change in changes:
                if isinstance(change, ModelRuntimeChanged) and change.runtime.status is change.previous.status:
                    continue
                self._admission.wake.set()

    def _pause_s(self) -> float:
        """Seconds until the passing of time alone may have changed the plan."""
        now_s, next_s = time.monotonic(), self._admission.plan.next_s
        ttls_s = [loaded.idle_ttl_s for loaded in self._loaded_models.snapshot(now_s) if loaded.idle_ttl_s]
        pause_s = min([_IDLE_CHECK_S, *(ttl_s / 4 for ttl_s in ttls_s)])
        return pause_s if next_s is None else min(pause_s, max(0.0, next_s - now_s))

    # --- steps ------------------------------------------------------------------------------------

    async def _ready(self, lease: Lease, priority: int) -> Lease:
        """Grant the lease once its model is ready."""
        endpoint = self._admitting_endpoint(lease.model.id)
        if endpoint is None:
            self._check_may_load(lease.model)
            await self._bring_up(lease, NO_OPTIONS, LoadTerms(priority))
            endpoint = self._endpoint(lease.model.id)
            if endpoint is None:
                raise Unavailable(f"Model {lease.model.slug!r} stopped as soon as it was ready. Try again.")
        self._grant(lease, endpoint)
        return lease

    def _grant(self, lease: Lease, endpoint: Endpoint) -> None:
        self._leases.hold(lease)
        lease.grant(endpoint)
        self._context.on_use(lease.model.id, time.time_ns() // 1_000_000)

    def _admitting_endpoint(self, model_id: int) -> Endpoint | None:
        """Endpoint of a model that admits new requests now."""
        return None if model_id in self._admission.plan.draining else self._endpoint(model_id)

    def _endpoint(self, model_id: int) -> Endpoint | None:
        if model_id in self._loaded_models.unloading:
            return None
        runtime = self._engine.runtime(model_id)
        return runtime.endpoint if runtime.status in ANSWERING else None

    def _check_may_load(self, model: Model) -> None:
        if not self._context.settings().load_on_request and model.id not in self._loaded_models:
            raise InvalidInput("model", f"{model.slug!r} is not loaded, and loading on request is off; load it first")

    async def _bring_up(self, lease: Lease, options: Mapping[str, OptionValue], terms: LoadTerms) -> ModelRuntime:
        """Wait for a place, then load. The lease is held from its admission on, so that the model is not evicted."""
        began_s = time.monotonic()
        if self._admission.accepts(lease.model.id):
            self._leases.hold(lease)
        else:
            requirement = await self._context.memory.requirement(lease.model, self._spec_for(lease, options))
            await self._admission.join(lease, replace(terms, memory=requirement))
        admitted_s = time.monotonic()
        lease.queued_s = admitted_s - began_s
        if self._engine.runtime(lease.model.id).status in ANSWERING:
            return self._engine.runtime(lease.model.id)
        runtime = await self._load(lease.model, self._spec_for(lease, options))
        lease.load_s = time.monotonic() - admitted_s
        return runtime

    def _spec_for(self, lease: Lease, options: Mapping[str, OptionValue]) -> LaunchSpec:
        return self._context.spec_for(lease.model, options)

    async def _load(self, model: Model, spec: LaunchSpec) -> ModelRuntime:
        """Load, and once more with less memory when the first load ran out of memory and the settings allow."""
        try:
            return await self._engine.load(spec)
        except LoadFailed as exc:
            if not self._context.settings().memory_retry:
                raise
            smaller = await self._context.memory.smaller_load(model, spec, exc)
            if smaller is None:
                raise
            return await self._engine.load(smaller)

    async def _unload(self, model_id: int, drain_s: float) -> ModelRuntime:
        self._loaded_models.unloading.add(model_id)
        try:
            await self._leases.drain_model(model_id, drain_s)
            return await self._engine.unload(model_id, drain_s=0.0)
        finally:
            self._loaded_models.forget(model_id)
            self._admission.replan_and_wake()


async def _wait_for(event: asyncio.Event, limit_s: float) -> None:
    """Return when the event is set, after `limit_s` seconds at the latest."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(limit_s):
            await event.wait()
