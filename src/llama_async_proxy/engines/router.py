"""llama-server's own router as an engine: one process that runs the models' processes, ours or somewhere else.

The router's event stream is what is believed; where a router has none its list is asked for again and again. Each
model that runs is in the care of a supervisor, as with workers, for whom loading and unloading are requests to the
router and a process's end is what the router says of it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence

from msgspec.structs import replace

from llama_async_proxy.engines.fleet import EngineHooks, Fleet
from llama_async_proxy.engines.instance import Instance, Listener, Start
from llama_async_proxy.engines.router_events import Callbacks, RouterEventStream, RouterInstance
from llama_async_proxy.engines.router_host import Host, Opened
from llama_async_proxy.engines.router_schema import RouterModel
from llama_async_proxy.errors import EngineMissing, LoadFailed
from llama_async_proxy.events import EngineChanged
from llama_async_proxy.records.engine import EngineEventType, EngineState, EngineStatus
from llama_async_proxy.records.logs import LogLevel, LogLine
from llama_async_proxy.records.runtime import LaunchSpec

logger = logging.getLogger(__name__)

LOG_SOURCE = "router"


async def _ignore(_: Sequence[RouterModel]) -> None:
    """For a router of ours, which lists what we told it."""


class RouterEngine(Fleet):
    """Keeps the promises of `contract.Engine` with a router.

    `registered` are the models as they would be launched now. `found` is told all models a router elsewhere lists, at
    the beginning and whenever that may have changed, so that those nobody knew can be registered.
    """

    def __init__(
        self,
        host: Host,
        outlets: EngineHooks,
        *,
        registered: Callable[[], Sequence[LaunchSpec]],
        found: Callable[[Sequence[RouterModel]], Awaitable[None]] = _ignore,
    ) -> None:
        super().__init__(outlets, "router")
        self._host = host
        self._registered = registered
        self._link = RouterEventStream(host, Callbacks(self._specs, self._adopt, self._let_go, found))
        self._keeper: asyncio.Task[None] | None = None

    # --- the engine ---------------------------------------------------------------------------------------

    async def start(self) -> EngineState:
        async with self._turn:
            if self._state.status is EngineStatus.RUNNING:
                return self._state
            if self._keeper is None or self._keeper.done():
                self._link.reopen()
                first: asyncio.Future[EngineMissing | None] = asyncio.get_running_loop().create_future()
                self._keeper = asyncio.create_task(self._keep(first), name="router")
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
                if self._host.leaves_models:
                    self._link.give_up("The engine was stopped")
                await self._stop_models()
            finally:
                await self._end_keeper()
                if was_running:
                    self._outlets.bus.publish(EngineChanged(EngineEventType.STOPPED, self._state))

    async def _end_keeper(self) -> None:
        keeper, self._keeper = self._keeper, None
        if keeper is not None:
            keeper.cancel()
            await asyncio.wait({keeper})
        await self._host.close()
        self._link.lost("The engine was stopped")

    # --- models -------------------------------------------------------------------------------------------

    def _start(self) -> Start:
        return self._instance

    async def _instance(self, spec: LaunchSpec, listener: Listener) -> Instance:
        return RouterInstance(spec, listener, self._link)

    def _adopt(self, name: str) -> None:
        """The router runs a model because of somebody else: from now on it is shown and cared for here, too."""
        spec = next((spec for spec in self._registered() if self._host.name_of(spec) == name), None)
        if spec is not None and self._state.status is EngineStatus.RUNNING and self._supervisor(spec.model_id) is None:
            self._begin(spec)

    def _let_go(self, model_id: int) -> None:
        """The router has unloaded a model because of somebody else, or to make room."""
        supervisor = self._supervisor(model_id)
        if supervisor is not None:
            supervisor.request_stop(0.0, LoadFailed("The router unloaded the model before it was ready"))

    # --- the router ---------------------------------------------------------------------------------------

    async def _keep(self, first: asyncio.Future[EngineMissing | None]) -> None:
        """Have a router, and another one when it is lost, until its tries are used up."""
        tries = 0
        while True:
            began_s = self._outlets.clock()
            reason = await self._keep_one(first)
            if self._outlets.clock() - began_s > self._outlets.timing.healthy_s:
                tries = 0
            delays = self._outlets.timing.restart_delays_s
            if tries >= len(delays) and not self._host.is_patient:
                self._become_broken(f"{reason}; it was started again {tries} times")
                self._link.give_up(reason)
                return
            if not first.done():
                first.set_result(EngineMissing(reason))
                if not self._host.is_patient:
                    self._link.give_up(reason)
                    return
            delay_s = delays[min(tries, len(delays) - 1)]
            tries += 1
            self._say(None, LogLevel.WARN, f"{reason}; trying again in {delay_s:g} s")
            await asyncio.sleep(delay_s)

    async def _keep_one(self, first: asyncio.Future[EngineMissing | None]) -> str:
        """Until the router could not be opened or is lost; why."""
        try:
            opened = await self._host.open(self._say)
            self._become_running(opened)
            if not first.done():
                first.set_result(None)
            reason = await self._until_lost(opened)
        except EngineMissing as exc:
            self._become_broken(exc.message)
            return exc.message
        except Exception as exc:  # a fault of ours must not leave models without care
            logger.exception("Keeping the router failed")
            reason = f"Internal error while keeping the router: {exc!r}"
        self._state = replace(self._state, status=EngineStatus.ERROR, error=reason)
        self._outlets.bus.publish(EngineChanged(EngineEventType.CLOSED, self._state, reason))
        self._link.lost(reason)
        await self._host.close()
        return reason

    async def _until_lost(self, opened: Opened) -> str:
        following = asyncio.create_task(self._link.follow(opened.endpoint))
        ending = asyncio.create_task(self._host.lost())
        try:
            await asyncio.wait({following, ending}, return_when=asyncio.FIRST_COMPLETED)
            if not ending.done():  # its end may be why it cannot be followed, and says more
                await asyncio.wait({ending}, timeout=self._outlets.timing.stop_grace_s)
            return ending.result() if ending.done() else following.result()
        finally:
            following.cancel()
            ending.cancel()
            await asyncio.wait({following, ending})

    def _become_running(self, opened: Opened) -> None:
        self._state = EngineState(
            EngineStatus.RUNNING,
            "router",
            binary=opened.binary,
            version=opened.version,
            started_at_ms=round(1000 * self._outlets.clock()),
            endpoint=opened.endpoint,
        )
        self._outlets.bus.publish(EngineChanged(EngineEventType.STARTED, self._state))

    def _become_broken(self, reason: str) -> None:
        was_broken = self._state.status is EngineStatus.ERROR and self._state.error == reason
        self._state = EngineState(EngineStatus.ERROR, "router", error=reason)
        if not was_broken:
            self._outlets.bus.publish(EngineChanged(EngineEventType.ERROR, self._state, reason))

    def _say(self, name: str | None, level: LogLevel, message: str) -> None:
        """A line about a model belongs to its own log, as long as somebody cares for it."""
        if name is not None and self._link.say(name, level, message):
            return
        self._outlets.log(LogLine(round(1000 * self._outlets.clock()), level, LOG_SOURCE, message))
