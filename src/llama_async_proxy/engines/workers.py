"""The default engine: one child process per model."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Mapping

from msgspec.structs import replace

from llama_async_proxy.engines.discovery import Launcher
from llama_async_proxy.engines.environment import passed_environment
from llama_async_proxy.engines.instance import StartInstance, process_start
from llama_async_proxy.engines.supervised import EngineHooks, SupervisedEngine
from llama_async_proxy.errors import EngineMissing
from llama_async_proxy.events import EngineChanged
from llama_async_proxy.records.engine import EngineEventType, EngineState, EngineStatus

logger = logging.getLogger(__name__)


class WorkersEngine(SupervisedEngine):
    """`contract.Engine` with one child process per model.

    `find_launcher` is called in a thread at each `start`, so it may block; it raises EngineMissing. `environment` is
    passed on to the children, with the variables that the engine itself sets (default: `passed_environment`).
    """

    def __init__(
        self,
        hooks: EngineHooks,
        find_launcher: Callable[[], Launcher],
        *,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(hooks, "workers")
        self._find_launcher = find_launcher
        self._environment = passed_environment(os.environ) if environment is None else environment
        self._launcher: Launcher

    async def start(self) -> EngineState:
        async with self._turn:
            if self._state.status is EngineStatus.RUNNING:
                return self._state
            try:
                launcher = await asyncio.to_thread(self._find_launcher)
            except EngineMissing as exc:
                self._state = replace(self._state, status=EngineStatus.ERROR, error=exc.message)
                self._hooks.bus.publish(EngineChanged(EngineEventType.ERROR, self._state, exc.message))
                raise
            self._launcher = launcher
            for problem in launcher.skipped:
                logger.warning("%s", problem)
            self._state = EngineState(
                EngineStatus.RUNNING,
                launcher.kind,
                binary=launcher.binary,
                version=launcher.version,
                started_at_ms=round(1000 * self._hooks.clock()),
            )
            self._hooks.bus.publish(EngineChanged(EngineEventType.STARTED, self._state))
            return self._state

    async def stop(self) -> None:
        async with self._turn:
            was_running = self._state.status is EngineStatus.RUNNING
            self._state = replace(self._state, status=EngineStatus.IDLE, error=None, started_at_ms=None)
            try:
                await self._stop_models()
            finally:
                if was_running:
                    self._hooks.bus.publish(EngineChanged(EngineEventType.STOPPED, self._state))

    def _start_instance(self) -> StartInstance:
        return process_start(self._launcher, self._environment)
