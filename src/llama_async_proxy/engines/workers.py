"""The default engine: one process per model, owned by us."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from types import TracebackType
from typing import Self

from llama_async_proxy.engines.discovery import Launcher
from llama_async_proxy.engines.options import check_options
from llama_async_proxy.engines.supervisor import Supervisor, Surroundings, Timing
from llama_async_proxy.errors import DeadlineExceeded, EngineMissing, EngineStopped, LoadFailed, ServiceError
from llama_async_proxy.events import EngineChanged, EventBus, ModelRuntimeChanged
from llama_async_proxy.records import (
    EngineEventType,
    EngineState,
    EngineStatus,
    LaunchSpec,
    LogLine,
    ModelRuntime,
    ModelStatus,
)

DEFAULT_TIMING = Timing()


class WorkersEngine:
    """Keeps the promises of `contract.Engine` with a child per model. An async context manager: leaving it stops all.

    `find_launcher` may block, it is called in a thread at each `start`; it raises EngineMissing. `log` gets every
    line the children print. `environment` is what they inherit (default: ours), `clock` gives Unix seconds.
    """

    def __init__(
        self,
        bus: EventBus,
        find_launcher: Callable[[], Launcher],
        log: Callable[[LogLine], None],
        *,
        timing: Timing = DEFAULT_TIMING,
        environment: Mapping[str, str] | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._bus = bus
        self._find_launcher = find_launcher
        self._log = log
        self._timing = timing
        self._environment = environment
        self._clock = clock
        self._state = EngineState(EngineStatus.IDLE, "workers")
        self._launcher: Launcher | None = None
        self._supervisors: dict[int, Supervisor] = {}
        self._turn = asyncio.Lock()
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

    # --- the engine ---------------------------------------------------------------------------------------

    @property
    def state(self) -> EngineState:
        return self._state

    async def start(self) -> EngineState:
        async with self._turn:
            if self._state.status is EngineStatus.RUNNING:
                return self._state
            try:
                launcher = await asyncio.to_thread(self._find_launcher)
            except EngineMissing as exc:
                self._state = replace(self._state, status=EngineStatus.ERROR, error=exc.message)
                self._bus.publish(EngineChanged(EngineEventType.ERROR, self._state, exc.message))
                raise
            self._launcher = launcher
            self._state = EngineState(
                EngineStatus.RUNNING,
                launcher.kind,
                binary=launcher.binary,
                version=launcher.version,
                started_at_ms=round(1000 * self._clock()),
            )
            self._bus.publish(EngineChanged(EngineEventType.STARTED, self._state))
            return self._state

    async def stop(self) -> None:
        async with self._turn:
            was_running = self._state.status is EngineStatus.RUNNING
            self._state = replace(self._state, status=EngineStatus.IDLE, error=None, started_at_ms=None)
            try:
                await self._stop_all()
            finally:
                if was_running:
                    self._bus.publish(EngineChanged(EngineEventType.STOPPED, self._state))

    async def _stop_all(self) -> None:
        supervisors = list(self._supervisors.values())
        for supervisor in supervisors:
            if supervisor.gone.done():
                supervisor.forget()
            else:
                supervisor.request_stop(0.0, EngineStopped())
        if supervisors:
            await asyncio.wait([s.gone for s in supervisors])

    # --- models -------------------------------------------------------------------------------------------

    def runtime(self, model_id: int) -> ModelRuntime:
        supervisor = self._supervisors.get(model_id)
        return supervisor.runtime if supervisor else ModelRuntime(model_id)

    def runtimes(self) -> tuple[ModelRuntime, ...]:
        return tuple(s.runtime for s in self._supervisors.values())

    def measure(self) -> None:
        """Bring `rss_bytes` of every runtime up to date, without an event: tens of microseconds per process."""
        for supervisor in self._supervisors.values():
            supervisor.measure()

    async def load(self, spec: LaunchSpec) -> ModelRuntime:
        """See `contract.Engine.load`. Who joins a load waits for it `spec.load_timeout_s` of its own.

        Raises InvalidInput for an option that cannot be passed, too.
        """
        check_options(spec.options)
        while True:
            launcher = self._require_launcher()
            supervisor = self._supervisors.get(spec.model_id)
            if supervisor is None or supervisor.gone.done():
                # The supervisor keeps the deadline, for the child must be gone by then.
                return _loaded(await asyncio.shield(self._begin(spec, launcher).outcome))
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

    def _require_launcher(self) -> Launcher:
        if self._state.status is EngineStatus.RUNNING and self._launcher is not None:
            return self._launcher
        if self._state.error is not None:
            raise EngineMissing(self._state.error)
        raise EngineStopped

    def _begin(self, spec: LaunchSpec, launcher: Launcher) -> Supervisor:
        surroundings = Surroundings(
            launcher=launcher,
            environment=os.environ if self._environment is None else self._environment,
            timing=self._timing,
            clock=self._clock,
            log=self._log,
            changed=self._changed,
            reported=self._reported,
        )
        previous = self.runtime(spec.model_id)
        supervisor = self._supervisors[spec.model_id] = Supervisor(spec, surroundings)
        supervisor.begin(previous)
        self._tasks.create_task(supervisor.run(), name=f"model {spec.alias}")
        return supervisor

    def _changed(self, runtime: ModelRuntime, previous: ModelRuntime) -> None:
        if runtime.status is ModelStatus.UNLOADED:
            del self._supervisors[runtime.model_id]
        self._bus.publish(ModelRuntimeChanged(runtime, previous))

    def _reported(self, kind: EngineEventType, error: str, model_id: int) -> None:
        self._bus.publish(EngineChanged(kind, self._state, error, model_id))


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
