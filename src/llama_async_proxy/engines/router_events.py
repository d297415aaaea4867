"""Follows a router's events, delivers them to the instances of its models, and passes on their requests."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence

from msgspec import Struct
from msgspec.structs import replace

from llama_async_proxy.engines import probe
from llama_async_proxy.engines.instance import InstanceListener
from llama_async_proxy.engines.log import StateLine
from llama_async_proxy.engines.process import rss_of
from llama_async_proxy.engines.router_api import NoEvents, RouterApi, RouterError, RouterUnreachable, SseReader
from llama_async_proxy.engines.router_host import RouterHost
from llama_async_proxy.engines.router_schema import (
    EVERY_MODEL,
    RUNNING_STATUSES,
    RouterModel,
    RouterModelEvent,
    parse_event,
)
from llama_async_proxy.errors import LoadFailed
from llama_async_proxy.records.logs import LogLevel
from llama_async_proxy.records.runtime import Endpoint, LaunchSpec

logger = logging.getLogger(__name__)

POLL_S = 1.0
"""Interval between two requests for the list of a router without events."""
QUIET_S = 15.0
"""Time without an event after which the router's health is checked."""
RECONNECT_S = 0.2
UNLOAD_S = 15.0
"""Limit for an unload, in addition to the time that the router itself gives the model's process."""
UNLOAD_CHECK_S = 1.0
LOST_CODE = 1
"""Exit code of an instance that was lost. Routers report 1 for every abnormal end (llama.cpp b11434)."""


class RouterCallbacks(Struct, frozen=True):
    """Functions of the engine that are called for news about no particular instance."""

    specs_in_use: Callable[[], Sequence[LaunchSpec]]
    on_loaded_elsewhere: Callable[[str], None]
    """Receives the router's name of a model that was loaded without a request of this service."""
    on_unloaded_elsewhere: Callable[[int], None]
    """Receives the id of a model that was unloaded without a request of this service."""
    on_models: Callable[[Sequence[RouterModel]], Awaitable[None]]
    """Receives all models of the router whenever the list may have changed."""


class RouterInstance:
    """`instance.Instance` of a model that the router runs."""

    def __init__(self, spec: LaunchSpec, listener: InstanceListener, events: RouterEventStream) -> None:
        self.spec = spec
        self.name = spec.alias
        self.endpoint: Endpoint
        self.exited: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self.pid: int | None = None
        self.is_stopping = False
        self.load_requested_s: float | None = None
        """Loop time at which the router was asked to load the model; None before."""
        self._listener = listener
        self._events = events
        self._ready = asyncio.Event()

    @property
    def rss_bytes(self) -> int | None:
        return None if self.pid is None else rss_of(self.pid)

    async def wait_until_ready(self) -> probe.Properties:
        await self._events.load(self)
        await self._ready.wait()
        self.pid = self._events.pid_of(self.name)
        return await probe.properties(self.endpoint)

    async def is_busy(self) -> bool:
        return await probe.is_busy(self.endpoint)

    async def stop(self, grace_s: float) -> None:
        self.is_stopping = True
        if not self.exited.done():
            await self._events.unload(self, grace_s)

    # --- called by the event stream -----------------------------------------------------------------

    def on_event(self, event: RouterModelEvent) -> None:
        match event.status:
            case "loading":
                if event.progress is not None:
                    self._listener.on_state(event.progress)
            case "loaded":
                self._ready.set()
                self._listener.on_state(StateLine("ready"))
            case "sleeping":
                self._ready.set()
                self._listener.on_state(StateLine("sleeping"))

    def on_log(self, level: LogLevel, message: str) -> None:
        self._listener.on_log(level, message)

    def on_exit(self, code: int) -> None:
        if not self.exited.done():
            self.exited.set_result(code)


class RouterEventStream:
    """Follows one router at a time and owns the instances that it runs."""

    def __init__(self, host: RouterHost, callbacks: RouterCallbacks) -> None:
        self._host = host
        self._callbacks = callbacks
        self._api: RouterApi | None = None
        self._instances: dict[str, RouterInstance] = {}
        """Instances by the router's name of their model."""
        self._statuses: dict[str, str] = {}
        self._now = asyncio.get_running_loop().time
        self._changed = asyncio.Event()
        self._is_up = False
        self._given_up: str | None = None
        """Reason why no router will come up any more."""

    # --- called by the engine -----------------------------------------------------------------------

    def reopen(self) -> None:
        """Allow loads again after `give_up`."""
        self._given_up = None

    async def follow(self, endpoint: Endpoint) -> str:
        """Follow the router until it cannot be reached any more. Returns the reason."""
        api = self._api = RouterApi(endpoint)
        while True:
            try:
                await self._follow(api)
            except RouterError as exc:
                if not await api.is_healthy():
                    return f"The router at {endpoint.host}:{endpoint.port} is lost: {exc}"
            await asyncio.sleep(RECONNECT_S)

    def on_lost(self, reason: str) -> None:
        """End all instances, because the router and all its processes are gone."""
        self._api, self._is_up = None, False
        self._statuses.clear()
        instances = list(self._instances.values())
        self._instances.clear()
        for instance in instances:
            instance.on_log(LogLevel.ERROR, reason)
            instance.on_exit(LOST_CODE)

    def give_up(self, reason: str) -> None:
        """Fail the loads that wait for a router, because none will come up."""
        self._given_up = reason
        self._wake()

    def on_log(self, name: str, level: LogLevel, message: str) -> bool:
        """Deliver a line of a model's log. Returns False when the model has no instance."""
        instance = self._instances.get(name)
        if instance is not None:
            instance.on_log(level, message)
        return instance is not None

    # --- called by instances ------------------------------------------------------------------------

    async def load(self, instance: RouterInstance) -> None:
        """Make the router load the model of an instance. Raises ServiceError when it cannot."""
        api = await self._wait_until_up()
        spec = instance.spec
        name = self._host.name_of(spec)
        status = self._statuses.get(name or "")
        if name is None or status not in RUNNING_STATUSES:
            others = [other for other in self._callbacks.specs_in_use() if other.model_id != spec.model_id]
            name = await self._host.register(spec, others, api)
        instance.name, instance.endpoint = name, replace(api.endpoint, model=name)
        self._instances[name] = instance
        if status in RUNNING_STATUSES:
            instance.load_requested_s = self._now()
            instance.on_event(RouterModelEvent(name, status or ""))
            return
        try:
            await api.load(name)
        except RouterError as exc:
            self._instances.pop(name, None)
            raise LoadFailed(f"The router did not load the model: {exc}") from exc
        instance.load_requested_s = self._now()

    async def unload(self, instance: RouterInstance, grace_s: float) -> None:
        """Unload the model of an instance and wait for that. A remote router that was given up keeps its models."""
        api = self._api
        is_current = self._instances.get(instance.name) is instance
        if api is None or not is_current or (self._host.keeps_models and self._given_up is not None):
            self._forget(instance, 0)
            return
        deadline = self._now() + grace_s + UNLOAD_S
        try:
            await api.unload(instance.name)
            while not instance.exited.done() and self._now() < deadline:
                await asyncio.wait({instance.exited}, timeout=UNLOAD_CHECK_S)
                if not instance.exited.done():
                    await self._refresh(api)
        except RouterError as exc:
            logger.warning("The router did not unload %s: %s", instance.name, exc)
        self._forget(instance, LOST_CODE)

    def pid_of(self, name: str) -> int | None:
        return self._host.pid_of(name)

    # --- following --------------------------------------------------------------------------------

    async def _follow(self, api: RouterApi) -> None:
        """Follow the events, or poll the list of a router without events. Raises RouterError when that fails."""
        try:
            async with api.events() as events:
                await self._refresh(api)
                self._set_up()
                await self._read_events(api, events)
        except NoEvents:
            while True:
                await self._refresh(api)
                self._set_up()
                await asyncio.sleep(POLL_S)

    async def _read_events(self, api: RouterApi, events: SseReader) -> None:
        while True:
            try:
                async with asyncio.timeout(QUIET_S):
                    event = parse_event(await events.next())
            except TimeoutError:
                if not await api.is_healthy():
                    raise RouterUnreachable("it does not answer") from None
                continue
            if event is not None and event.name == EVERY_MODEL:
                await self._refresh(api)
            elif event is not None:
                await self._apply(event)

    async def _refresh(self, api: RouterApi) -> None:
        """Request the list and apply the states of all models."""
        began_s = self._now()
        models = await api.models()
        self._host.on_models(models)
        await self._callbacks.on_models(models)
        for model in models:
            instance = self._instances.get(model.name)
            requested_s = None if instance is None else instance.load_requested_s
            if instance is not None and (requested_s is None or requested_s > began_s):
                continue  # The list may be older than the request to load the model.
            if self._statuses.get(model.name) != model.status or model.status == "unloaded":
                await self._apply(RouterModelEvent(model.name, model.status, model.exit_code))

    async def _apply(self, event: RouterModelEvent) -> None:
        self._statuses[event.name] = event.status
        instance = self._instances.get(event.name)
        if instance is None:
            if event.status in RUNNING_STATUSES:
                self._callbacks.on_loaded_elsewhere(event.name)
        elif event.status != "unloaded":
            instance.on_event(event)
        elif event.exit_code or instance.load_requested_s is not None:
            await self._on_unloaded(instance, event.exit_code or 0)

    async def _on_unloaded(self, instance: RouterInstance, code: int) -> None:
        if code:
            await self._host.wait_for_log(instance.name)
        elif not instance.is_stopping:
            self._callbacks.on_unloaded_elsewhere(instance.spec.model_id)
        self._forget(instance, code)

    def _forget(self, instance: RouterInstance, code: int) -> None:
        if self._instances.get(instance.name) is instance:
            del self._instances[instance.name]
        instance.on_exit(code)

    async def _wait_until_up(self) -> RouterApi:
        while not self._is_up or self._api is None:
            if self._given_up is not None:
                raise LoadFailed(self._given_up)
            await self._changed.wait()
        return self._api

    def _set_up(self) -> None:
        self._is_up = True
        self._wake()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()
