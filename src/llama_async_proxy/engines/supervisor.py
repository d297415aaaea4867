"""Supervisor of one model's process, from the first start to the final end, in one task.

    begin -> LOADING -> READY <-> SLEEPING -> STOPPING -> UNLOADED
                |  ^       |
                |  +-------+  the process died: back-off, then a new process
                v
              FAILED          the model never became ready, or its process died too often

Only the task changes the state. Callers request a stop (`request_stop`) or wait for a result (`outcome`, `ended`).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any, TypeAlias

from msgspec import Struct
from msgspec.structs import replace

from llama_async_proxy.engines import probe
from llama_async_proxy.engines.instance import Instance, StartInstance
from llama_async_proxy.engines.log import EngineLogReader, StateLine
from llama_async_proxy.engines.process import describe_exit
from llama_async_proxy.errors import DeadlineExceeded, LoadFailed, ServiceError
from llama_async_proxy.records.engine import EngineEventType
from llama_async_proxy.records.logs import LogLevel, LogLine
from llama_async_proxy.records.runtime import LaunchSpec, LoadProgress, MemoryUse, ModelRuntime, ModelStatus

logger = logging.getLogger(__name__)

PORT_TRIES = 5
DRAIN_POLL_S = 0.5
PROGRESS_INTERVAL_S = 0.1


class Timing(Struct, frozen=True):
    """Durations in seconds; tests shorten them."""

    restart_delays_s: tuple[float, ...] = (1, 2, 4, 8, 16)
    """Pause before each restart after a crash; their number is the number of tries."""
    healthy_s: float = 60.0
    """Time after which a model that runs gets all its tries back."""
    stop_grace_s: float = 2.0
    """Time from SIGTERM to SIGKILL. SIGKILL loses no data, but SIGTERM lets llama.cpp free its GPU buffers itself."""


class SupervisorContext(Struct, frozen=True):
    """Everything that a supervisor gets from its engine."""

    start: StartInstance
    timing: Timing
    clock: Callable[[], float]
    """Seconds since the Unix epoch."""
    log: Callable[[LogLine], None]
    on_change: Callable[[ModelRuntime, ModelRuntime], None]
    """Receives the new and the previous state."""
    on_event: Callable[[EngineEventType, str, int], None]
    """Receives a death or a failure: its kind, the reason and the model's id."""


class _Ready(Struct, frozen=True):
    """Result of a start that succeeded. A class of its own, because `isinstance` cannot test for the Protocol."""

    instance: Instance


Outcome: TypeAlias = ModelRuntime | ServiceError
"""Result of a load. An error is a value here, because it may have no reader or several."""


class Supervisor:
    """Runs one model and restarts its process after a crash."""

    def __init__(self, spec: LaunchSpec, context: SupervisorContext) -> None:
        loop = asyncio.get_running_loop()
        self.spec = spec
        self.runtime = ModelRuntime(spec.model_id)
        self.outcome: asyncio.Future[Outcome] = loop.create_future()
        """Result of the current load, or of the last one. Must be shielded, because several callers wait for it."""
        self.ended: asyncio.Future[None] = loop.create_future()
        """Done when no process is left and none will be started."""
        self._context = context
        self._timing = context.timing
        self._now = loop.time
        self._stop: asyncio.Future[ServiceError] = loop.create_future()
        self._drain_until = 0.0
        self._instance: Instance | None = None
        self._log_reader = EngineLogReader()
        self._memory: MemoryUse | None = None
        self._load_began = 0.0
        self._progress_published = 0.0

    @property
    def is_stopping(self) -> bool:
        return self._stop.done()

    def begin(self, previous: ModelRuntime) -> None:
        """Become LOADING before the task runs, so that the next caller sees it."""
        self.runtime = previous
        self._load_began = self._now()
        progress = LoadProgress("starting", 0.0, self._now_ms())
        self._set_runtime(
            ModelRuntime(self.spec.model_id, ModelStatus.LOADING, progress=progress, options=self.spec.options)
        )

    def request_stop(self, drain_s: float, reason: ServiceError) -> None:
        """End the process once running requests have ended, after `drain_s` at the latest.

        Callers that wait for a load get `reason`. Of two requests the shorter time counts.
        """
        until = self._now() + drain_s
        if self._stop.done():
            self._drain_until = min(until, self._drain_until)
        else:
            self._drain_until = until
            self._stop.set_result(reason)

    def reset(self) -> None:
        """Become UNLOADED after FAILED."""
        self._set_runtime(ModelRuntime(self.spec.model_id))

    def measure(self) -> None:
        """Read the memory use of the process into `runtime`, without publishing it."""
        if self._instance is not None:
            self.runtime = replace(self.runtime, rss_bytes=self._instance.rss_bytes)

    async def run(self) -> None:
        """Task of the supervisor. Returns when the process has ended for good; when cancelled, it leaves no process."""
        error: ServiceError = LoadFailed("The service was interrupted")
        try:
            error = await self._run_until_stopped()
        except Exception as exc:  # An internal error concerns this model only; others must go on.
            logger.exception("supervision of model %s failed", self.spec.alias)
            error = LoadFailed(f"Internal error while running the model: {exc!r}")
        finally:
            try:
                if self._instance is not None:
                    await self._instance.stop(0)
            finally:  # Runs after a second cancellation, too: SIGKILL was sent, and waiting callers must be released.
                self._finish(error)

    # --- phases -------------------------------------------------------------------------------------------

    async def _run_until_stopped(self) -> ServiceError:
        """Run the model until a stop is requested or all tries are used up. Returns the reason."""
        result = await self._load()
        while isinstance(result, _Ready):
            await self._serve(result)
            if self.is_stopping:
                break
            result = await self._recover(result)
        if isinstance(result, ServiceError):
            return result
        await self._shut_down()
        return self._stop.result()

    async def _load(self) -> _Ready | ServiceError | None:
        """Start an instance; again when its port was taken. Returns an error, or None when a stop was requested."""
        deadline = self._now() + self.spec.load_timeout_s
        for _ in range(PORT_TRIES):
            result = await self._launch(deadline)
            if not isinstance(result, LoadFailed) or not self._log_reader.is_port_taken:
                break
        return result

    async def _launch(self, deadline: float) -> _Ready | ServiceError | None:
        """Start one instance and wait until it is ready."""
        self._log_reader, self._memory = EngineLogReader(), None
        try:
            instance = self._instance = await self._context.start(self.spec, self)
        except ServiceError as exc:
            return exc
        self._set_runtime(replace(self.runtime, pid=instance.pid))
        ready = asyncio.create_task(instance.wait_until_ready())
        try:
            await self._wait_for_any(instance.exited, ready, timeout=max(0.0, deadline - self._now()))
        finally:
            ready.cancel()
            await asyncio.wait({ready})
        if self.is_stopping:
            return None
        if instance.exited.done():
            code = instance.exited.result()
            return self._failed(code, f"The model did not load: {self._log_reader.failure} ({describe_exit(code)})")
        if ready.cancelled():
            await instance.stop(0)
            problem = f"The model did not become ready within {self.spec.load_timeout_s:g} s"
            return DeadlineExceeded(problem, details="\n".join(self._log_reader.tail) or None)
        try:
            properties = ready.result()
        except ServiceError as exc:
            await instance.stop(0)
            return exc
        self._become_ready(instance, properties)
        return _Ready(instance)

    async def _serve(self, ready: _Ready) -> None:
        """Wait until the process ends or a stop is requested."""
        exited = ready.instance.exited
        await self._wait_for_any(exited, timeout=self._timing.healthy_s)
        if self.runtime.restarts and not exited.done() and not self.is_stopping:
            self._set_runtime(replace(self.runtime, restarts=0))
        await self._wait_for_any(exited)

    async def _recover(self, dead: _Ready) -> _Ready | ServiceError | None:
        """Restart after a crash, with back-off. Returns an error, or None when a stop was requested."""
        code, last_error = dead.instance.exited.result(), self._log_reader.last_error
        problem = f"The model's process ended unexpectedly: {describe_exit(code)}"
        result: _Ready | ServiceError | None = self._failed(code, problem + (f"; {last_error}" if last_error else ""))
        self._context.on_event(EngineEventType.CLOSED, str(result), self.spec.model_id)
        self.outcome = asyncio.get_running_loop().create_future()
        for delay in self._timing.restart_delays_s[self.runtime.restarts :]:
            self._log(LogLevel.WARN, f"{result}; starting it again in {delay:g} s")
            self._load_began = self._now()
            self._set_runtime(
                ModelRuntime(
                    self.spec.model_id,
                    ModelStatus.LOADING,
                    progress=LoadProgress("restarting", 0.0, self._now_ms()),
                    restarts=self.runtime.restarts + 1,
                    options=self.runtime.options,
                )
            )
            await self._wait_for_any(timeout=delay)
            result = None if self.is_stopping else await self._load()
            if not isinstance(result, ServiceError):
                break
        return result

    async def _shut_down(self) -> None:
        """Drain, then stop the process."""
        instance = self._instance
        if instance is None or self.runtime.endpoint is None:
            return  # The model was never ready: `run` kills its process.
        self._set_runtime(replace(self.runtime, status=ModelStatus.STOPPING))
        while (left := self._drain_until - self._now()) > 0 and await instance.is_busy():
            await asyncio.wait({instance.exited}, timeout=min(left, DRAIN_POLL_S))
        grace_s = self.spec.stop_timeout_s
        await instance.stop(self._timing.stop_grace_s if grace_s is None else grace_s)

    async def _wait_for_any(self, *futures: asyncio.Future[Any], timeout: float | None = None) -> None:
        """Wait for one of `futures` or a requested stop, for at most `timeout` seconds; cancels none of them."""
        await asyncio.wait({*futures, self._stop}, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)

    # --- state --------------------------------------------------------------------------------------------

    def _set_runtime(self, runtime: ModelRuntime) -> None:
        previous, self.runtime = self.runtime, runtime
        self._context.on_change(runtime, previous)

    def _become_ready(self, instance: Instance, properties: probe.Properties) -> None:
        self._set_runtime(
            replace(
                self.runtime,
                status=ModelStatus.READY,
                endpoint=instance.endpoint,
                pid=instance.pid,
                progress=None,
                loaded_at_ms=self._now_ms(),
                load_duration_ms=round(1000 * (self._now() - self._load_began)),
                context_size=properties.context_size,
                slots=properties.slots,
                rss_bytes=instance.rss_bytes,
                memory=self._memory,
            )
        )
        self.outcome.set_result(self.runtime)

    def _finish(self, reason: ServiceError) -> None:
        """Set the final state: UNLOADED after a requested stop, else FAILED."""
        if self.is_stopping:
            self.reset()
        else:
            self._set_runtime(
                ModelRuntime(
                    self.spec.model_id,
                    ModelStatus.FAILED,
                    error=str(reason),
                    exit_code=reason.exit_code if isinstance(reason, LoadFailed) else None,
                    log_tail=self._log_reader.tail,
                    restarts=self.runtime.restarts,
                    options=self.runtime.options,
                )
            )
            self._context.on_event(EngineEventType.ERROR, str(reason), self.spec.model_id)
        if not self.outcome.done():
            self.outcome.set_result(reason)
        self.ended.set_result(None)

    def _failed(self, code: int, reason: str) -> LoadFailed:
        return LoadFailed(reason, exit_code=code, log_tail=self._log_reader.tail)

    # --- InstanceListener -----------------------------------------------------------------------------------

    def on_log(self, level: LogLevel, message: str) -> None:
        self._log_reader.add(level, message)
        self._log(level, message)

    def on_memory(self, memory: MemoryUse) -> None:
        self._memory = memory

    def on_state(self, state: StateLine) -> None:
        match self.runtime.status, state.state:
            case ModelStatus.LOADING, "loading":
                self._on_progress(state)
            case ModelStatus.READY, "sleeping":
                self._set_runtime(replace(self.runtime, status=ModelStatus.SLEEPING))
            case ModelStatus.SLEEPING, "ready":
                self._set_runtime(replace(self.runtime, status=ModelStatus.READY))

    def _on_progress(self, line: StateLine) -> None:
        progress = self.runtime.progress
        stage = line.stage or "starting"
        too_soon = self._now() - self._progress_published < PROGRESS_INTERVAL_S
        if progress is None or (too_soon and stage == progress.stage):
            return
        self._progress_published = self._now()
        self._set_runtime(replace(self.runtime, progress=replace(progress, stage=stage, fraction=line.fraction)))

    def _log(self, level: LogLevel, message: str) -> None:
        self._context.log(LogLine(self._now_ms(), level, f"model:{self.spec.alias}", message))

    def _now_ms(self) -> int:
        return round(1000 * self._context.clock())
