"""The default engine: one process per model, owned by us."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Mapping

from msgspec.structs import replace

from llama_async_proxy.engines.discovery import Launcher
from llama_async_proxy.engines.environment import passed_environment
from llama_async_proxy.engines.fleet import EngineHooks, Fleet
from llama_async_proxy.engines.instance import Start, process_start
from llama_async_proxy.errors import EngineMissing
from llama_async_proxy.events import EngineChanged
from llama_async_proxy.records.engine import EngineEventType, EngineState, EngineStatus

logger = logging.getLogger(__name__)


class WorkersEngine(Fleet):
    """Keeps the promises of `contract.Engine` with a child per model.

    `find_launcher` may block, it is called in a thread at each `start`; it raises EngineMissing. `environment` is what
    the children get beside what the engine itself sets (default: `passed_environment` of ours).
    """

    def __init__(
        self,
        outlets: EngineHooks,
        find_launcher: Callable[[], Launcher],
        *,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(outlets, "workers")
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
                self._outlets.bus.publish(EngineChanged(EngineEventType.ERROR, self._state, exc.message))
                raise
            self._launcher = launcher
            for problem in launcher.passed_over:
                logger.warning("%s", problem)
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
                await self._stop_models()
            finally:
                if was_running:
                    self._outlets.bus.publish(EngineChanged(EngineEventType.STOPPED, self._state))

    def _start(self) -> Start:
        return process_start(self._launcher, self._environment)
