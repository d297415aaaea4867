"""The default engine: one process per model, owned by us."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from types import TracebackType
from typing import Self

from llama_async_proxy.engines.discovery import Launcher
from llama_async_proxy.engines.fleet import Fleet, Outlets
from llama_async_proxy.engines.instance import Start, process_start
from llama_async_proxy.errors import EngineMissing, EngineStopped
from llama_async_proxy.events import EngineChanged
from llama_async_proxy.records.engine import EngineEventType, EngineState, EngineStatus
from llama_async_proxy.records.runtime import LaunchSpec, ModelRuntime


class WorkersEngine:
    """Keeps the promises of `contract.Engine` with a child per model. An async context manager: leaving it stops all.

    `find_launcher` may block, it is called in a thread at each `start`; it raises EngineMissing. `environment` is what
    the children inherit (default: ours).
    """

    def __init__(
        self,
        outlets: Outlets,
        find_launcher: Callable[[], Launcher],
        *,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._outlets = outlets
        self._find_launcher = find_launcher
        self._environment = environment
        self._state = EngineState(EngineStatus.IDLE, "workers")
        self._launcher: Launcher | None = None
        self._turn = asyncio.Lock()
        self._fleet = Fleet(outlets, lambda: self._state, self._start_instance)

    async def __aenter__(self) -> Self:
        await self._fleet.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            await self.stop()
        finally:
            await self._fleet.__aexit__(kind, error, traceback)

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
                self._outlets.bus.publish(EngineChanged(EngineEventType.ERROR, self._state, exc.message))
                raise
            self._launcher = launcher
            self._state = EngineState(
                EngineStatus.RUNNING,
                launcher.kind,
                binary=launcher.binary,
                version=launcher.version,
                started_at_ms=round(1000 * self._outlets.clock()),
            )
            self._outlets.bus.publish(EngineChanged(EngineEventType.STARTED, self._state))
            return self._state

    async def stop(self) -> None:
        async with self._turn:
            was_running = self._state.status is EngineStatus.RUNNING
            self._state = replace(self._state, status=EngineStatus.IDLE, error=None, started_at_ms=None)
            try:
                await self._fleet.stop()
            finally:
                if was_running:
                    self._outlets.bus.publish(EngineChanged(EngineEventType.STOPPED, self._state))

    # --- models -------------------------------------------------------------------------------------------

    def runtime(self, model_id: int) -> ModelRuntime:
        return self._fleet.runtime(model_id)

    def runtimes(self) -> tuple[ModelRuntime, ...]:
        return self._fleet.runtimes()

    def measure(self) -> None:
        self._fleet.measure()

    async def load(self, spec: LaunchSpec) -> ModelRuntime:
        """See `contract.Engine.load`. Who joins a load waits for it `spec.load_timeout_s` of its own.

        Raises InvalidInput for an option that cannot be passed, too.
        """
        return await self._fleet.load(spec)

    async def unload(self, model_id: int, *, drain_s: float = 10.0) -> ModelRuntime:
        return await self._fleet.unload(model_id, drain_s=drain_s)

    def _start_instance(self) -> Start:
        if self._state.status is EngineStatus.RUNNING and self._launcher is not None:
            return process_start(self._launcher, os.environ if self._environment is None else self._environment)
        if self._state.error is not None:
            raise EngineMissing(self._state.error)
        raise EngineStopped
