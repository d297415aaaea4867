"""Base of all engines: each model that runs is in the care of its own supervisor."""

from __future__ import annotations

import asyncio
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from types import TracebackType
from typing import Self

from msgspec import Struct

from llama_async_proxy.engines.arguments import check_options
from llama_async_proxy.engines.instance import StartInstance
from llama_async_proxy.engines.supervisor import Supervisor, SupervisorContext, Timing
from llama_async_proxy.errors import DeadlineExceeded, EngineMissing, EngineStopped, LoadFailed, ServiceError
from llama_async_proxy.events import EngineChanged, EventBus, ModelRuntimeChanged
from llama_async_proxy.records.engine import EngineEventType, EngineState, EngineStatus
from llama_async_proxy.records.logs import LogLine
from llama_async_proxy.records.runtime import LaunchSpec, ModelRuntime, ModelStatus


class EngineHooks(Struct, frozen=True):
    """Receivers of an engine's events and log lines, and its measures of time."""

    bus: EventBus
    log: Callable[[LogLine], None]
    """Receives every line that the models' processes print."""
    clock: Callable[[], float] = time.time
    """Seconds since the Unix epoch."""
    timing: Timing = Timing()


class SupervisedEngine(ABC):
    """Everything in `contract.Engine` that concerns models. A subclass adds how the engine starts and stops.

    An async context manager: leaving the block stops the engine.
    """

    def __init__(self, hooks: EngineHooks, kind: str) -> None:
        self._hooks = hooks
        self._state = EngineState(EngineStatus.IDLE, kind)
        self._turn = asyncio.Lock()
        """Held while the engine starts or stops."""
        self._supervisors: dict[int, Supervisor] = {}
        self._tasks = asyncio.TaskGroup()

    async def __aenter__(self) -> Self:
        await self._tasks.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            await self.stop()
        finally:
            # Pass on cancellations only: the task group would wrap any other error in an exception group.
            cancelled = kind is asyncio.CancelledError
            await self._tasks.__aexit__(*((kind, error, traceback) if cancelled else (None, None, None)))

    @property
    def state(self) -> EngineState:
        return self._state

    @abstractmethod
    async def stop(self) -> None:
        """See `contract.Engine.stop`."""

    @abstractmethod
    def _start_instance(self) -> StartInstance:
        """Function that starts instances. Called only while the engine runs."""

    async def _stop_models(self) -> None:
        """Stop all models. FAILED models become UNLOADED."""
        supervisors = list(self._supervisors.values())
        for supervisor in supervisors:
            if supervisor.ended.done():
                supervisor.reset()
            else:
                supervisor.request_stop(0.0, EngineStopped())
        if supervisors:
            await asyncio.wait([s.ended for s in supervisors])

    def runtime(self, model_id: int) -> ModelRuntime:
        supervisor = self._supervisors.get(model_id)
        return supervisor.runtime if supervisor else ModelRuntime(model_id)

    def runtimes(self) -> tuple[ModelRuntime, ...]:
        return tuple(s.runtime for s in self._supervisors.values())

    def _specs_in_use(self) -> tuple[LaunchSpec, ...]:
        """Specs of the models that have an instance or are about to get one."""
        return tuple(s.spec for s in self._supervisors.values() if not s.ended.done())

    def measure(self) -> None:
        for supervisor in self._supervisors.values():
            supervisor.measure()

    async def load(self, spec: LaunchSpec) -> ModelRuntime:
        """See `contract.Engine.load`. A caller that joins a load waits for its own `spec.load_timeout_s`.

        Also raises InvalidInput for an option that cannot be passed on.
        """
        check_options(spec.options)
        while True:
            self._check_running()
            supervisor = self._supervisors.get(spec.model_id)
            if supervisor is None or supervisor.ended.done():
                # The supervisor keeps the deadline itself, because the child must be gone by then.
                return _loaded(await asyncio.shield(self._supervise(spec).outcome))
            if supervisor.is_stopping:
                await asyncio.shield(supervisor.ended)
            elif supervisor.outcome.done():
                return supervisor.runtime
            else:
                return await _join(supervisor, spec.load_timeout_s)

    async def unload(self, model_id: int, *, drain_s: float = 10.0) -> ModelRuntime:
        supervisor = self._supervisors.get(model_id)
        if supervisor is None:
            return ModelRuntime(model_id)
        if supervisor.ended.done():
            supervisor.reset()
        else:
            supervisor.request_stop(drain_s, LoadFailed("The model was unloaded before it was ready"))
            await asyncio.shield(supervisor.ended)
        return supervisor.runtime

    def _check_running(self) -> None:
        """Raise EngineMissing or EngineStopped unless models can be loaded now."""
        if self._state.status is not EngineStatus.RUNNING:
            raise EngineMissing(self._state.error) if self._state.error is not None else EngineStopped()

    def _supervise(self, spec: LaunchSpec) -> Supervisor:
        """Start the supervisor of a model that has no instance."""
        context = SupervisorContext(
            start=self._start_instance(),
            timing=self._hooks.timing,
            clock=self._hooks.clock,
            log=self._hooks.log,
            on_change=self._on_change,
            on_event=self._on_event,
        )
        previous = self.runtime(spec.model_id)
        supervisor = self._supervisors[spec.model_id] = Supervisor(spec, context)
        supervisor.begin(previous)
        self._tasks.create_task(supervisor.run(), name=f"model {spec.alias}")
        return supervisor

    def _supervisor(self, model_id: int) -> Supervisor | None:
        """Supervisor of a model that has an instance or is about to get one."""
        supervisor = self._supervisors.get(model_id)
        return None if supervisor is None or supervisor.ended.done() else supervisor

    def _on_change(self, runtime: ModelRuntime, previous: ModelRuntime) -> None:
        if runtime.status is ModelStatus.UNLOADED:
            del self._supervisors[runtime.model_id]
        self._hooks.bus.publish(ModelRuntimeChanged(runtime, previous))

    def _on_event(self, kind: EngineEventType, error: str, model_id: int) -> None:
        self._hooks.bus.publish(EngineChanged(kind, self._state, error, model_id))


async def _join(supervisor: Supervisor, timeout_s: float) -> ModelRuntime:
    try:
        async with asyncio.timeout(timeout_s):
            return _loaded(await asyncio.shield(supervisor.outcome))
    except TimeoutError:
        raise DeadlineExceeded(
            f"The model, being loaded for another caller, was not ready within {timeout_s:g} s"
        ) from None


def _loaded(outcome: ModelRuntime | ServiceError) -> ModelRuntime:
    if isinstance(outcome, ServiceError):
        raise outcome
    return outcome
