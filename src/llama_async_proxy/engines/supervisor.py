"""The life of one model's process, from the first start to the last end, in one task.

    begin -> LOADING -> READY <-> SLEEPING -> STOPPING -> UNLOADED
                |  ^       |
                |  +-------+  it died: back-off, new process
                v
              FAILED          it never came up, or died too often

Only the task changes the state; others ask (`request_stop`) or wait (`outcome`, `gone`).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any, TypeAlias

from msgspec import Struct
from msgspec.structs import replace

from llama_async_proxy.engines import probe
from llama_async_proxy.engines.instance import Instance, Start
from llama_async_proxy.engines.options import EngineLogReader, StateLine
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
    """Seconds; tests shorten them."""

    restart_delays_s: tuple[float, ...] = (1, 2, 4, 8, 16)
    """Pause before each restart after a crash; their number is the number of tries."""
    healthy_s: float = 60.0
    """A model that ran this long has its tries back."""
    stop_grace_s: float = 2.0
    """From SIGTERM to SIGKILL. Nothing is lost by the latter; the former frees GPUs in an orderly way."""


class SupervisorContext(Struct, frozen=True):
    """What a supervisor is given and where it reports to."""

    start: Start
    timing: Timing
    clock: Callable[[], float]
    """Seconds since the Unix epoch."""
    log: Callable[[LogLine], None]
    changed: Callable[[ModelRuntime, ModelRuntime], None]
    """New and previous state."""
    reported: Callable[[EngineEventType, str, int], None]
    """A death or a failure, why, and of which model."""


class _Ready(Struct, frozen=True):
    """An instance that answers; a class, because an Instance may be of any."""

    instance: Instance


Outcome: TypeAlias = ModelRuntime | ServiceError
"""How a load ended; an error is a value here because it may have no reader, or several."""


class Supervisor:
    def __init__(self, spec: LaunchSpec, surroundings: SupervisorContext) -> None:
        loop = asyncio.get_running_loop()
        self.spec = spec
        self.runtime = ModelRuntime(spec.model_id)
        self.outcome: asyncio.Future[Outcome] = loop.create_future()
        """Of the load going on, or of the last one. Shield it: many wait for it."""
        self.gone: asyncio.Future[None] = loop.create_future()
        """Done when no process is left and none will come."""
        self._around = surroundings
        self._timing = surroundings.timing
        self._now = loop.time
        self._stop: asyncio.Future[ServiceError] = loop.create_future()
        self._drain_until = 0.0
        self._instance: Instance | None = None
        self._digest = EngineLogReader()
        self._counted: MemoryUse | None = None
        self._load_began = 0.0
        self._progress_published = 0.0

    @property
    def is_stopping(self) -> bool:
        return self._stop.done()

    def begin(self, previous: ModelRuntime) -> None:
        """Become LOADING, before the task runs, so that whoever asks next sees it."""
        self.runtime = previous
        self._load_began = self._now()
        progress = LoadProgress("starting", 0.0, self._now_ms())
        self._become(
            ModelRuntime(self.spec.model_id, ModelStatus.LOADING, progress=progress, options=self.spec.options)
        )

    def request_stop(self, drain_s: float, reason: ServiceError) -> None:
        """End the process after running requests, or `drain_s`; whoever waits for a load gets `reason`.

        Asked twice, the shorter time counts.
        """
        until = self._now() + drain_s
        if self._stop.done():
            self._drain_until = min(until, self._drain_until)
        else:
            self._drain_until = until
            self._stop.set_result(reason)

    def forget(self) -> None:
        """FAILED becomes UNLOADED."""
        self._become(ModelRuntime(self.spec.model_id))

    def measure(self) -> None:
        """Read the memory use of the process into `runtime`; nothing is published."""
        if self._instance is not None:
            self.runtime = replace(self.runtime, rss_bytes=self._instance.rss_bytes)

    async def run(self) -> None:
        """The task. Returns when the process is gone for good; also a cancelled one leaves no process."""
        error: ServiceError = LoadFailed("The service was interrupted")
        try:
            error = await self._live()
        except Exception as exc:  # a fault in the care of one model must not end the others
            logger.exception("supervision of model %s failed", self.spec.alias)
            error = LoadFailed(f"Internal error while running the model: {exc!r}")
        finally:
            try:
                if self._instance is not None:
                    await self._instance.stop(0)
            finally:  # cancelled again: SIGKILL is sent, and nobody may wait for this model for ever
                self._finish(error)

    # --- the life -----------------------------------------------------------------------------------------

    async def _live(self) -> ServiceError:
        """Until asked to stop, or given up; the reason."""
        result = await self._bring_up()
        while isinstance(result, _Ready):
            await self._serve(result)
            if self.is_stopping:
                break
            result = await self._recover(result)
        if isinstance(result, ServiceError):
            return result
        await self._shut_down()
        return self._stop.result()

    async def _bring_up(self) -> _Ready | ServiceError | None:
        """An instance that is READY; or why there is none; or None when asked to stop."""
        deadline = self._now() + self.spec.load_timeout_s
        for _ in range(PORT_TRIES):
            result = await self._launch(deadline)
            if not isinstance(result, LoadFailed) or not self._digest.is_port_taken:
                break
        return result

    async def _launch(self, deadline: float) -> _Ready | ServiceError | None:
        self._digest, self._counted = EngineLogReader(), None
        try:
            instance = self._instance = await self._around.start(self.spec, self)
        except ServiceError as exc:
            return exc
        self._become(replace(self.runtime, pid=instance.pid))
        ready = asyncio.create_task(instance.until_ready())
        try:
            await self._first_of(instance.exited, ready, timeout=max(0.0, deadline - self._now()))
        finally:
            ready.cancel()
            await asyncio.wait({ready})
        if self.is_stopping:
            return None
        if instance.exited.done():
            code = instance.exited.result()
            return self._failed(code, f"The model did not load: {self._digest.failure} ({describe_exit(code)})")
        if ready.cancelled():
            await instance.stop(0)
            problem = f"The model did not become ready within {self.spec.load_timeout_s:g} s"
            return DeadlineExceeded(problem, details="\n".join(self._digest.tail) or None)
        try:
            properties = ready.result()
        except ServiceError as exc:
            await instance.stop(0)
            return exc
        self._become_ready(instance, properties)
        return _Ready(instance)

    async def _serve(self, ready: _Ready) -> None:
        """Until the process ends or a stop is asked for."""
        exited = ready.instance.exited
        await self._first_of(exited, timeout=self._timing.healthy_s)
        if self.runtime.restarts and not exited.done() and not self.is_stopping:
            self._become(replace(self.runtime, restarts=0))
        await self._first_of(exited)

    async def _recover(self, dead: _Ready) -> _Ready | ServiceError | None:
        """After an unasked end: another instance that is READY; or why there is none; or None when asked to stop."""
        code, words = dead.instance.exited.result(), self._digest.last_words
        problem = f"The model's process ended unexpectedly: {describe_exit(code)}" + (f"; {words}" if words else "")
        result: _Ready | ServiceError | None = self._failed(code, problem)
        self._around.reported(EngineEventType.CLOSED, str(result), self.spec.model_id)
        self.outcome = asyncio.get_running_loop().create_future()
        for delay in self._timing.restart_delays_s[self.runtime.restarts :]:
            self._log(LogLevel.WARN, f"{result}; starting it again in {delay:g} s")
            self._load_began = self._now()
            self._become(
                ModelRuntime(
                    self.spec.model_id,
                    ModelStatus.LOADING,
                    progress=LoadProgress("restarting", 0.0, self._now_ms()),
                    restarts=self.runtime.restarts + 1,
                    options=self.runtime.options,
                )
            )
            await self._first_of(timeout=delay)
            result = None if self.is_stopping else await self._bring_up()
            if not isinstance(result, ServiceError):
                break
        return result

    async def _shut_down(self) -> None:
        instance = self._instance
        if instance is None or self.runtime.endpoint is None:
            return  # nothing serves: `run` kills what is left
        self._become(replace(self.runtime, status=ModelStatus.STOPPING))
        while (left := self._drain_until - self._now()) > 0 and await instance.is_busy():
            await asyncio.wait({instance.exited}, timeout=min(left, DRAIN_POLL_S))
        grace_s = self.spec.stop_timeout_s
        await instance.stop(self._timing.stop_grace_s if grace_s is None else grace_s)

    async def _first_of(self, *futures: asyncio.Future[Any], timeout: float | None = None) -> None:
        """Wait for one of `futures` or a request to stop, at most `timeout` seconds; cancels nothing."""
        await asyncio.wait({*futures, self._stop}, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)

    # --- the state ----------------------------------------------------------------------------------------

    def _become(self, runtime: ModelRuntime) -> None:
        previous, self.runtime = self.runtime, runtime
        self._around.changed(runtime, previous)

    def _become_ready(self, instance: Instance, properties: probe.Properties) -> None:
        self._become(
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
                memory=self._counted,
            )
        )
        self.outcome.set_result(self.runtime)

    def _finish(self, reason: ServiceError) -> None:
        """The last state: UNLOADED if that was asked for, else FAILED."""
        if self.is_stopping:
            self.forget()
        else:
            self._become(
                ModelRuntime(
                    self.spec.model_id,
                    ModelStatus.FAILED,
                    error=str(reason),
                    exit_code=reason.exit_code if isinstance(reason, LoadFailed) else None,
                    log_tail=self._digest.tail,
                    restarts=self.runtime.restarts,
                    options=self.runtime.options,
                )
            )
            self._around.reported(EngineEventType.ERROR, str(reason), self.spec.model_id)
        if not self.outcome.done():
            self.outcome.set_result(reason)
        self.gone.set_result(None)

    def _failed(self, code: int, reason: str) -> LoadFailed:
        return LoadFailed(reason, exit_code=code, log_tail=self._digest.tail)

    # --- what the instance says ---------------------------------------------------------------------------

    def said(self, level: LogLevel, message: str) -> None:
        self._digest.add(level, message)
        self._log(level, message)

    def counted(self, memory: MemoryUse) -> None:
        self._counted = memory

    def reported(self, state: StateLine) -> None:
        match self.runtime.status, state.state:
            case ModelStatus.LOADING, "loading":
                self._progressed(state)
            case ModelStatus.READY, "sleeping":
                self._become(replace(self.runtime, status=ModelStatus.SLEEPING))
            case ModelStatus.SLEEPING, "ready":
                self._become(replace(self.runtime, status=ModelStatus.READY))

    def _progressed(self, line: StateLine) -> None:
        progress = self.runtime.progress
        stage = line.stage or "starting"
        too_soon = self._now() - self._progress_published < PROGRESS_INTERVAL_S
        if progress is None or (too_soon and stage == progress.stage):
            return
        self._progress_published = self._now()
        self._become(replace(self.runtime, progress=replace(progress, stage=stage, fraction=line.fraction)))

    def _log(self, level: LogLevel, message: str) -> None:
        self._around.log(LogLine(self._now_ms(), level, f"model:{self.spec.alias}", message))

    def _now_ms(self) -> int:
        return round(1000 * self._around.clock())
