"""Admission control: queues requests for models without a place, and admits them by the plan of the policy."""

from __future__ import annotations

import asyncio
import time
from math import ceil

from llama_async_proxy.errors import DeadlineExceeded, Overloaded, ServiceError
from llama_async_proxy.inference.scheduling import policy
from llama_async_proxy.inference.scheduling.leases import Lease, Leases, end_wait
from llama_async_proxy.inference.scheduling.memory import total_memory
from llama_async_proxy.inference.scheduling.queue import LoadTerms, Queue
from llama_async_proxy.inference.scheduling.snapshot import LoadedModels, SchedulerContext
from llama_async_proxy.records.models import Model
from llama_async_proxy.records.runtime import MemoryUse


class AdmissionControl:
    """The queue and the current plan. To be used in the event loop's thread only.

    Makes the plan and admits requests; evicting is left to the scheduler, which `wake` wakes.
    """

    def __init__(self, loaded_models: LoadedModels, leases: Leases, context: SchedulerContext) -> None:
        self.queue: Queue[Lease] = Queue()
        self.leases = leases
        self.plan = policy.Plan()
        self.evictions: list[int] = []
        """Ids of the models that the plan evicts, until the scheduler begins to unload them."""
        self.wake = asyncio.Event()
        """Set when the scheduler has something to do."""
        self._loaded_models = loaded_models
        self._context = context

    def accepts(self, model_id: int) -> bool:
        """True when new requests for the model need not queue: the model has a place and is not draining."""
        is_shut = model_id in self._loaded_models.unloading or model_id in self.plan.draining
        return model_id in self._loaded_models and not is_shut

    async def join(self, lease: Lease, terms: LoadTerms) -> None:
        """Hold the lease once its model has a place, after waiting in the queue if necessary.

        Raises Overloaded when the queue is full or pinned models hold every place, NotEnoughMemory when the model can
        never fit, DeadlineExceeded after the queue timeout, and Unavailable when the model was unloaded meanwhile.
        """
        model_id = lease.model.id
        if self.accepts(model_id):
            self.leases.hold(lease)
            return
        admission = self._enqueue(lease, terms)
        limit_s = self._context.settings().queue_timeout_s
        try:
            async with asyncio.timeout(limit_s):
                refusal = await admission
        except TimeoutError:
            raise DeadlineExceeded(
                f"Model {lease.model.slug!r} waited {limit_s:g} s for its turn: other models are busy."
            ) from None
        finally:
            if self.queue.discard(model_id, lease):
                self.replan_and_wake()
        if isinstance(refusal, policy.Constraint):
            raise self._refusal_error(lease.model, refusal, terms.memory)
        if refusal is not None:
            raise refusal

    def refuse(self, model_id: int, reason: ServiceError | policy.Constraint) -> None:
        """Take all requests for a model out of the queue, with an error for each."""
        for lease in self.queue.take(model_id):
            end_wait(lease, reason)

    def replan_and_wake(self) -> None:
        """Make a new plan after a change, and wake the scheduler to act on it."""
        self.replan()
        self.wake.set()

    def replan(self) -> None:
        """Make a new plan, admit the requests whose turn has come, and refuse those whose turn can never come."""
        now_s, waiters = time.monotonic(), self.queue.waiters()
        self.plan = policy.plan(waiters, self._loaded_models.snapshot(now_s), self._context.limits(), now_s)
        self._loaded_models.estimated.update(
            (w.model_id, w.memory) for w in waiters if w.model_id in self.plan.admitted
        )
        for model_id in self.plan.admitted:
            for lease in self.queue.take(model_id):
                self.leases.hold(lease)
                end_wait(lease)
        for model_id, constraint in self.plan.refused.items():
            self.refuse(model_id, constraint)
        self._loaded_models.unloading.update(self.plan.evictions)
        self.evictions += self.plan.evictions

    def _enqueue(self, lease: Lease, terms: LoadTerms) -> asyncio.Future[ServiceError | policy.Constraint | None]:
        settings, model_id, now_s = self._context.settings(), lease.model.id, time.monotonic()
        waiting = self.queue.length(model_id)
        if waiting >= settings.queue_limit:
            turn_s = self.queue.since_s(model_id) + settings.fairness_s - now_s
            raise Overloaded(
                f"{waiting} requests wait for model {lease.model.slug!r} already. Try again later.",
                retry_after_s=max(1, ceil(turn_s)),
            )
        lease.admission = asyncio.get_running_loop().create_future()
        self.queue.add(model_id, lease, now_s, terms)
        self.replan_and_wake()
        return lease.admission

    def _refusal_error(self, model: Model, constraint: policy.Constraint, requirement: MemoryUse) -> ServiceError:
        if constraint is policy.Constraint.MEMORY:
            loaded_models = self._loaded_models.snapshot(time.monotonic())
            pinned = (loaded for loaded in loaded_models if loaded.pinned and loaded.model_id != model.id)
            return self._context.memory.shortage(model, requirement, total_memory(each.memory for each in pinned))
        if constraint is policy.Constraint.GROUP:
            return Overloaded(
                f"Model {model.slug!r} may not run beside a pinned model: a group in the settings says so."
            )
        places = self._context.settings().max_models
        return Overloaded(f"All {places} places are held by pinned models. Unload one, or raise the limit.")
