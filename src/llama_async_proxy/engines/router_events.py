"""What a router says of its models, brought to those who care for them; and what they ask of it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence

from msgspec import Struct
from msgspec.structs import replace

from llama_async_proxy.engines import probe
from llama_async_proxy.engines.instance import Listener
from llama_async_proxy.engines.options import StateLine
from llama_async_proxy.engines.process import rss_of
from llama_async_proxy.engines.router_api import EventStream, NoEvents, RouterApi, RouterError, RouterUnreachable
from llama_async_proxy.engines.router_host import Host
from llama_async_proxy.engines.router_schema import (
    EVERY_MODEL,
    RUNNING_STATUSES,
    RouterEvent,
    RouterModel,
    parse_event,
)
from llama_async_proxy.errors import LoadFailed
from llama_async_proxy.records.logs import LogLevel
from llama_async_proxy.records.runtime import Endpoint, LaunchSpec

logger = logging.getLogger(__name__)

POLL_S = 1.0
"""Between two looks at the list of a router without events."""
QUIET_S = 15.0
"""Without an event for so long, the router is asked whether it is still there."""
RECONNECT_S = 0.2
UNLOAD_S = 15.0
"""For an unload, beyond the time the router itself gives the model's process."""
UNLOAD_CHECK_S = 1.0
LOST_CODE = 1
"""As the router reports every end that was not in order."""


class Callbacks(Struct, frozen=True):
    """What the engine does with news that concern no instance."""

    running: Callable[[], Sequence[LaunchSpec]]
    """Specs of the models that are in use."""
    active: Callable[[str], None]
    """The router runs a model that nobody here asked for."""
    unloaded: Callable[[int], None]
    """Somebody else has unloaded this model of ours."""
    listed: Callable[[Sequence[RouterModel]], Awaitable[None]]
    """All models the router knows, whenever that may have changed."""


class RouterInstance:
    """A model that the router runs for us; an `instance.Instance`."""

    def __init__(self, spec: LaunchSpec, listener: Listener, link: RouterEventStream) -> None:
        self.spec = spec
        self.name = spec.alias
        self.endpoint: Endpoint
        self.exited: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self.pid: int | None = None
        self.is_stopping = False
        self.asked_s: float | None = None
        """When the router was asked to load it; None before."""
        self._listener = listener
        self._link = link
        self._ready = asyncio.Event()

    @property
    def rss_bytes(self) -> int | None:
        return None if self.pid is None else rss_of(self.pid)

    async def until_ready(self) -> probe.Properties:
        await self._link.load(self)
        await self._ready.wait()
        self.pid = self._link.pid_of(self.name)
        return await probe.properties(self.endpoint)

    async def is_busy(self) -> bool:
        return await probe.is_busy(self.endpoint)

    async def stop(self, grace_s: float) -> None:
        self.is_stopping = True
        if not self.exited.done():
            await self._link.unload(self, grace_s)

    # --- for the link -----------------------------------------------------------------------------

    def heard(self, event: RouterEvent) -> None:
        match event.status:
            case "loading":
                if event.progress is not None:
                    self._listener.reported(event.progress)
            case "loaded":
                self._ready.set()
                self._listener.reported(StateLine("ready"))
            case "sleeping":
                self._ready.set()
                self._listener.reported(StateLine("sleeping"))

    def said(self, level: LogLevel, message: str) -> None:
        self._listener.said(level, message)

    def end(self, code: int) -> None:
        if not self.exited.done():
            self.exited.set_result(code)


class RouterEventStream:
    """Follows one router at a time and owns the instances it runs."""

    def __init__(self, host: Host, callbacks: Callbacks) -> None:
        self._host = host
        self._callbacks = callbacks
        self._api: RouterApi | None = None
        self._instances: dict[str, RouterInstance] = {}
        self._statuses: dict[str, str] = {}
        self._now = asyncio.get_running_loop().time
        self._changed = asyncio.Event()
        self._is_up = False
        self._end: str | None = None
        """Why no router will come any more."""

    # --- for the engine ---------------------------------------------------------------------------

    def reopen(self) -> None:
        self._end = None

    async def follow(self, endpoint: Endpoint) -> str:
        """Until the router cannot be reached any more; why."""
        api = self._api = RouterApi(endpoint)
        while True:
            try:
                await self._follow(api)
            except RouterError as exc:
                if not await api.is_healthy():
                    return f"The router at {endpoint.host}:{endpoint.port} is lost: {exc}"
            await asyncio.sleep(RECONNECT_S)

    def lost(self, reason: str) -> None:
        """The router is gone, and all its processes."""
        self._api, self._is_up = None, False
        self._statuses.clear()
        instances = list(self._instances.values())
        self._instances.clear()
        for instance in instances:
            instance.said(LogLevel.ERROR, reason)
            instance.end(LOST_CODE)

    def give_up(self, reason: str) -> None:
        """Nobody need wait for a router any more."""
        self._end = reason
        self._wake()

    def say(self, name: str, level: LogLevel, message: str) -> bool:
        """A line of a model's log; False when the model is nobody's."""
        instance = self._instances.get(name)
        if instance is not None:
            instance.said(level, message)
        return instance is not None

    # --- for instances ----------------------------------------------------------------------------

    async def load(self, instance: RouterInstance) -> None:
        """Have the router load it. Raises ServiceError when it cannot."""
        api = await self._until_up()
        spec = instance.spec
        name = self._host.name_of(spec)
        status = self._statuses.get(name or "")
        if name is None or status not in RUNNING_STATUSES:
            others = [other for other in self._callbacks.running() if other.model_id != spec.model_id]
            name = await self._host.offer(spec, others, api)
        instance.name, instance.endpoint = name, replace(api.endpoint, model=name)
        self._instances[name] = instance
        if status in RUNNING_STATUSES:
            instance.asked_s = self._now()
            instance.heard(RouterEvent(name, status or ""))
            return
        try:
            await api.load(name)
        except RouterError as exc:
            self._instances.pop(name, None)
            raise LoadFailed(f"The router did not load the model: {exc}") from exc
        instance.asked_s = self._now()

    async def unload(self, instance: RouterInstance, grace_s: float) -> None:
        """Have it unloaded and wait for that, or at once let go of a model that is not ours to end."""
        api = self._api
        is_its_own = self._instances.get(instance.name) is instance
        if api is None or not is_its_own or (self._host.leaves_models and self._end is not None):
            self._forget(instance, 0)
            return
        deadline = self._now() + grace_s + UNLOAD_S
        try:
            await api.unload(instance.name)
            while not instance.exited.done() and self._now() < deadline:
                await asyncio.wait({instance.exited}, timeout=UNLOAD_CHECK_S)
                if not instance.exited.done():
                    await self._look(api)
        except RouterError as exc:
            logger.warning("The router did not unload %s: %s", instance.name, exc)
        self._forget(instance, LOST_CODE)

    def pid_of(self, name: str) -> int | None:
        return self._host.pid_of(name)

    # --- following --------------------------------------------------------------------------------

    async def _follow(self, api: RouterApi) -> None:
        try:
            async with api.events() as events:
                await self._look(api)
                self._up()
                await self._listen(api, events)
        except NoEvents:
            while True:
                await self._look(api)
                self._up()
                await asyncio.sleep(POLL_S)

    async def _listen(self, api: RouterApi, events: EventStream) -> None:
        while True:
            try:
                async with asyncio.timeout(QUIET_S):
                    event = parse_event(await events.next())
            except TimeoutError:
                if not await api.is_healthy():
                    raise RouterUnreachable("it does not answer") from None
                continue
            if event is not None and event.name == EVERY_MODEL:
                await self._look(api)
            elif event is not None:
                await self._apply(event)

    async def _look(self, api: RouterApi) -> None:
        """Learn the state of all models at once."""
        began_s = self._now()
        models = await api.models()
        self._host.learn(models)
        await self._callbacks.listed(models)
        for model in models:
            instance = self._instances.get(model.name)
            if instance is not None and (instance.asked_s is None or instance.asked_s > began_s):
                continue  # the answer may be older than the question
            if self._statuses.get(model.name) != model.status or model.status == "unloaded":
                await self._apply(RouterEvent(model.name, model.status, model.exit_code))

    async def _apply(self, event: RouterEvent) -> None:
        self._statuses[event.name] = event.status
        instance = self._instances.get(event.name)
        if instance is None:
            if event.status in RUNNING_STATUSES:
                self._callbacks.active(event.name)
        elif event.status != "unloaded":
            instance.heard(event)
        elif event.exit_code or instance.asked_s is not None:
            await self._ended(instance, event.exit_code or 0)

    async def _ended(self, instance: RouterInstance, code: int) -> None:
        if code:
            await self._host.settled(instance.name)
        elif not instance.is_stopping:
            self._callbacks.unloaded(instance.spec.model_id)
        self._forget(instance, code)

    def _forget(self, instance: RouterInstance, code: int) -> None:
        if self._instances.get(instance.name) is instance:
            del self._instances[instance.name]
        instance.end(code)

    async def _until_up(self) -> RouterApi:
        while not self._is_up or self._api is None:
            if self._end is not None:
                raise LoadFailed(self._end)
            await self._changed.wait()
        return self._api

    def _up(self) -> None:
        self._is_up = True
        self._wake()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()
