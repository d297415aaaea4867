"""Engine that uses llama-server's router: one process that runs the models' processes, local or remote.

The router's event stream is the source of truth; from a router without one, the list of models is polled. Each model
that runs has a supervisor, as with workers: loading and unloading are requests to the router, and the end of a process
is an event of the router.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence

from msgspec.structs import replace

from llama_async_proxy.engines.instance import Instance, InstanceListener, StartInstance
from llama_async_proxy.engines.router_events import RouterCallbacks, RouterEventStream, RouterInstance
from llama_async_proxy.engines.router_host import OpenRouter, RouterHost
from llama_async_proxy.engines.router_schema import RouterModel
from llama_async_proxy.engines.supervised import EngineHooks, SupervisedEngine
from llama_async_proxy.errors import EngineMissing, LoadFailed
from llama_async_proxy.events import EngineChanged
from llama_async_proxy.records.engine import EngineEventType, EngineState, EngineStatus
from llama_async_proxy.records.logs import LogLevel, LogLine
from llama_async_proxy.records.runtime import LaunchSpec

logger = logging.getLogger(__name__)

LOG_SOURCE = "router"


async def _ignore_models(_: Sequence[RouterModel]) -> None:
    """Default of `on_models`, for a local router, which lists only registered models."""


class RouterEngine(SupervisedEngine):
    """`contract.Engine` with a router.

    `registered` returns the specs of all models as they would be launched now. `on_models` receives the list of a
    remote router, at the start and whenever it may have changed, so that unknown models can be registered.
    """

    def __init__(
        self,
        host: RouterHost,
        hooks: EngineHooks,
        *,
        registered: Callable[[], Sequence[LaunchSpec]],
        on_models: Callable[[Sequence[RouterModel]], Awaitable[None]] = _ignore_models,
    ) -> None:
        super().__init__(hooks, "router")
        self._host = host
        self._registered = registered
        callbacks = RouterCallbacks(
            self._specs_in_use, self._on_loaded_elsewhere, self._on_unloaded_elsewhere, on_models
        )
        self._events = RouterEventStream(host, callbacks)
        self._router_task: asyncio.Task[None] | None = None

    # --- the engine ---------------------------------------------------------------------------------------

    async def start(self) -> EngineState:
        async with self._turn:
            if self._state.status is EngineStatus.RUNNING:
                return self._state
            if self._router_task is None or self._router_task.done():
                self._events.reopen()
                first: asyncio.Future[EngineMissing | None] = asyncio.get_running_loop().create_future()
                self._router_task = asyncio.create_task(self._keep_router_running(first), name="router")
                problem = await asyncio.shield(first)
                if problem is not None:
                    raise problem
            elif self._state.error is not None:
                raise EngineMissing(self._state.error)
            return self._state

    async def stop(self) -> None:
        async with self._turn:
            was_running = self._state.status is EngineStatus.RUNNING
            self._state = EngineState(EngineStatus.IDLE, "router")
            try:
                if self._host.keeps_models:
                    self._events.give_up("The engine was stopped")
                await self._stop_models()
            finally:
                await self._end_router_task()
                if was_running:
                    self._hooks.bus.publish(EngineChanged(EngineEventType.STOPPED, self._state))

    async def _end_router_task(self) -> None:
        task, self._router_task = self._router_task, None
        if task is not None:
            task.cancel()
            await asyncio.wait({task})
        await self._host.close()
        self._events.on_lost("The engine was stopped")

    # --- models -------------------------------------------------------------------------------------------

    def _start_instance(self) -> StartInstance:
        return self._new_instance

    async def _new_instance(self, spec: LaunchSpec, listener: InstanceListener) -> Instance:
        return RouterInstance(spec, listener, self._events)

    def _on_loaded_elsewhere(self, name: str) -> None:
        """Supervise a model that the router has loaded for another client."""
        spec = next((spec for spec in self._registered() if self._host.name_of(spec) == name), None)
        if spec is not None and self._state.status is EngineStatus.RUNNING and self._supervisor(spec.model_id) is None:
            self._supervise(spec)

    def _on_unloaded_elsewhere(self, model_id: int) -> None:
        """End the supervision of a model that the router has unloaded for another client, or to make room."""
        supervisor = self._supervisor(model_id)
        if supervisor is not None:
            supervisor.request_stop(0.0, LoadFailed("The router unloaded the model before it was ready"))

    # --- the router ---------------------------------------------------------------------------------------

    async def _keep_router_running(self, first: asyncio.Future[EngineMissing | None]) -> None:
        """Run the router, and again after it was lost, until all tries are used up. `first` gets the first result."""
        tries = 0
        while True:
            began_s = self._hooks.clock()
            reason = await self._run_router_once(first)
            if self._hooks.clock() - began_s > self._hooks.timing.healthy_s:
                tries = 0
            delays = self._hooks.timing.restart_delays_s
            if tries >= len(delays) and not self._host.retries_forever:
                self._become_broken(f"{reason}; it was started again {tries} times")
                self._events.give_up(reason)
                return
            if not first.done():
                first.set_result(EngineMissing(reason))
                if not self._host.retries_forever:
                    self._events.give_up(reason)
                    return
            delay_s = delays[min(tries, len(delays) - 1)]
            tries += 1
            self._on_log(None, LogLevel.WARN, f"{reason}; trying again in {delay_s:g} s")
            await asyncio.sleep(delay_s)

    async def _run_router_once(self, first: asyncio.Future[EngineMissing | None]) -> str:
        """Run the router until it is lost. Returns the reason why it was lost or could not be opened."""
        try:
            opened = await self._host.open(self._on_log)
            self._become_running(opened)
            if not first.done():
                first.set_result(None)
            reason = await self._wait_until_lost(opened)
        except EngineMissing as exc:
            self._become_broken(exc.message)
            return exc.message
        except Exception as exc:  # After an internal error models still need their supervision.
            logger.exception("Keeping the router failed")
            reason = f"Internal error while keeping the router: {exc!r}"
        self._state = replace(self._state, status=EngineStatus.ERROR, error=reason)
        self._hooks.bus.publish(EngineChanged(EngineEventType.CLOSED, self._state, reason))
        self._events.on_lost(reason)
        await self._host.close()
        return reason

    async def _wait_until_lost(self, opened: OpenRouter) -> str:
        following = asyncio.create_task(self._events.follow(opened.endpoint))
        ending = asyncio.create_task(self._host.wait_until_lost())
        try:
            await asyncio.wait({following, ending}, return_when=asyncio.FIRST_COMPLETED)
            if not ending.done():  # The stream may have ended because the process did, whose reason says more.
                await asyncio.wait({ending}, timeout=self._hooks.timing.stop_grace_s)
            return ending.result() if ending.done() else following.result()
        finally:
            following.cancel()
            ending.cancel()
            await asyncio.wait({following, ending})

    def _become_running(self, opened: OpenRouter) -> None:
        self._state = EngineState(
            EngineStatus.RUNNING,
            "router",
            binary=opened.binary,
            version=opened.version,
            started_at_ms=round(1000 * self._hooks.clock()),
            endpoint=opened.endpoint,
        )
        self._hooks.bus.publish(EngineChanged(EngineEventType.STARTED, self._state))

    def _become_broken(self, reason: str) -> None:
        was_broken = self._state.status is EngineStatus.ERROR and self._state.error == reason
        self._state = EngineState(EngineStatus.ERROR, "router", error=reason)
        if not was_broken:
            self._hooks.bus.publish(EngineChanged(EngineEventType.ERROR, self._state, reason))

    def _on_log(self, name: str | None, level: LogLevel, message: str) -> None:
        """Add a line to the log of its model, or to the router's when the model has no supervisor."""
        if name is not None and self._events.on_log(name, level, message):
            return
        self._hooks.log(LogLine(round(1000 * self._hooks.clock()), level, LOG_SOURCE, message))
