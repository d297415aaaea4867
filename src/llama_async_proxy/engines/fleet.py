"""What engines have in common: their models, each in the care of a supervisor of its own."""

from __future__ import annotations

import asyncio
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from types import TracebackType
from typing import Self

from msgspec import Struct

from llama_async_proxy.engines.instance import Start
from llama_async_proxy.engines.options import check_options
from llama_async_proxy.engines.supervisor import Supervisor, SupervisorContext, Timing
from llama_async_proxy.errors import DeadlineExceeded, EngineMissing, EngineStopped, LoadFailed, ServiceError
from llama_async_proxy.events import EngineChanged, EventBus, ModelRuntimeChanged
from llama_async_proxy.records.engine import EngineEventType, EngineState, EngineStatus
from llama_async_proxy.records.logs import LogLine
from llama_async_proxy.records.runtime import LaunchSpec, ModelRuntime, ModelStatus


class EngineHooks(Struct, frozen=True):
    """Where engines tell what happens, and how they measure time."""

    bus: EventBus
    log: Callable[[LogLine], None]
    """Gets every line the models' processes print."""
    clock: Callable[[], float] = time.time
    """Seconds since the Unix epoch."""
    timing: Timing = Timing()


class Fleet(ABC):
    """An engine's models, and what `contract.Engine` promises of them; an engine adds how it becomes ready for them and
    ends. An async context manager: leaving it stops all."""

    def __init__(self, outlets: EngineHooks, kind: str) -> None:
        self._outlets = outlets
        self._state = EngineState(EngineStatus.IDLE, kind)
        self._turn = asyncio.Lock()
        """Held while it starts or stops."""
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
            # Only a cancellation may be the group's own doing; another error it would wrap in a group.
            cancelled = kind is asyncio.CancelledError
            await self._tasks.__aexit__(*((kind, error, traceback) if cancelled else (None, None, None)))

    @property
    def state(self) -> EngineState:
        return self._state

    @abstractmethod
    async def stop(self) -> None:
        """See `contract.Engine.stop`."""

    @abstractmethod
    def _start(self) -> Start:
        """How an instance is started now; it is only asked for while the engine runs."""

    async def _stop_models(self) -> None:
        """FAILED becomes UNLOADED."""
        supervisors = list(self._supervisors.values())
        for supervisor in supervisors:
            if supervisor.gone.done():
                supervisor.forget()
            else:
                supervisor.request_stop(0.0, EngineStopped())
        if supervisors:
            await asyncio.wait([s.gone for s in supervisors])

    def runtime(self, model_id: int) -> ModelRuntime:
        supervisor = self._supervisors.get(model_id)
        return supervisor.runtime if supervisor else ModelRuntime(model_id)

    def runtimes(self) -> tuple[ModelRuntime, ...]:
        return tuple(s.runtime for s in self._supervisors.values())

    def _specs(self) -> tuple[LaunchSpec, ...]:
        """Of the models that have an instance or are about to."""
        return tuple(s.spec for s in self._supervisors.values() if not s.gone.done())

    def measure(self) -> None:
        for supervisor in self._supervisors.values():
            supervisor.measure()

    async def load(self, spec: LaunchSpec) -> ModelRuntime:
        """See `contract.Engine.load`. Who joins a load waits for it `spec.load_timeout_s` of its own.

        Raises InvalidInput for an option that cannot be passed, too.
        """
        check_options(spec.options)
        while True:
            self._check_running()
            supervisor = self._supervisors.get(spec.model_id)
            if supervisor is None or supervisor.gone.done():
                # The supervisor keeps the deadline, for the child must be gone by then.
                return _loaded(await asyncio.shield(self._begin(spec).outcome))
            if supervisor.is_stopping:
                await asyncio.shield(supervisor.gone)
            elif supervisor.outcome.done():
                return supervisor.runtime
            else:
                return await _join(supervisor, spec.load_timeout_s)

    async def unload(self, model_id: int, *, drain_s: float = 10.0) -> ModelRuntime:
        supervisor = self._supervisors.get(model_id)
        if supervisor is None:
            return ModelRuntime(model_id)
        if supervisor.gone.done():
            supervisor.forget()
        else:
            supervisor.request_stop(drain_s, LoadFailed("The model was unloaded before it was ready"))
            await asyncio.shield(supervisor.gone)
        return supervisor.runtime

    def _check_running(self) -> None:
        """Raises EngineMissing or EngineStopped while nothing can be loaded."""
        if self._state.status is not EngineStatus.RUNNING:
            raise EngineMissing(self._state.error) if self._state.error is not None else EngineStopped()

    def _begin(self, spec: LaunchSpec) -> Supervisor:
        """Care for a model from now on. It must not have an instance."""
        surroundings = SupervisorContext(
            start=self._start(),
            timing=self._outlets.timing,
            clock=self._outlets.clock,
            log=self._outlets.log,
            changed=self._changed,
            reported=self._reported,
        )
        previous = self.runtime(spec.model_id)
        supervisor = self._supervisors[spec.model_id] = Supervisor(spec, surroundings)
        supervisor.begin(previous)
        self._tasks.create_task(supervisor.run(), name=f"model {spec.alias}")
        return supervisor

    def _supervisor(self, model_id: int) -> Supervisor | None:
        """Who cares for a model that has an instance or is about to."""
        supervisor = self._supervisors.get(model_id)
        return None if supervisor is None or supervisor.gone.done() else supervisor

    def _changed(self, runtime: ModelRuntime, previous: ModelRuntime) -> None:
        if runtime.status is ModelStatus.UNLOADED:
            del self._supervisors[runtime.model_id]
        self._outlets.bus.publish(ModelRuntimeChanged(runtime, previous))

    def _reported(self, kind: EngineEventType, error: str, model_id: int) -> None:
        self._outlets.bus.publish(EngineChanged(kind, self._state, error, model_id))


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
