"""The doors over real rooms: store, scheduler, sampler, and the engine with a quick program in llama-server's place."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import time
from collections.abc import AsyncIterator, Callable
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import socketio
from starlette.types import ASGIApp, Receive, Scope, Send

from llama_async_proxy.api.http.access import SecurityMiddleware
from llama_async_proxy.api.http.metering import MeteringMiddleware
from llama_async_proxy.api.rest.app import create_rest
from llama_async_proxy.api.socketio.server import Sockets
from llama_async_proxy.api.ui.static import is_page
from llama_async_proxy.chats.answers import Answers
from llama_async_proxy.engines.catalogue import CatalogueCache
from llama_async_proxy.engines.fleet import EngineHooks
from llama_async_proxy.engines.workers import WorkersEngine
from llama_async_proxy.events import EventBus, LogWritten
from llama_async_proxy.inference.completion import Completer
from llama_async_proxy.inference.in_flight import InFlightRequests
from llama_async_proxy.inference.requests.names import Names
from llama_async_proxy.inference.scheduling.scheduler import ModelScheduler
from llama_async_proxy.inference.upstream.client import UpstreamClient
from llama_async_proxy.inference.upstream.connection_pool import ConnectionPool
from llama_async_proxy.monitor.connections import ConnectionMeter
from llama_async_proxy.monitor.engine_counters import EngineCounters
from llama_async_proxy.monitor.gpu import CombinedProbe
from llama_async_proxy.monitor.host import HostProbe
from llama_async_proxy.monitor.logfiles import LogFiles
from llama_async_proxy.monitor.requests import RequestMeter
from llama_async_proxy.monitor.sampler import Machine, Sampler, ServiceFacts
from llama_async_proxy.operations.active_preset import ActivePreset
from llama_async_proxy.operations.configuration import Configuration
from llama_async_proxy.operations.context import Context
from llama_async_proxy.operations.launch import LaunchPlanner
from llama_async_proxy.operations.memory import MemoryPlanner
from llama_async_proxy.operations.models import ScanModels, scan_models
from llama_async_proxy.operations.option_policy import OptionPolicy
from llama_async_proxy.records.logs import LogLevel, LogLine
from llama_async_proxy.settings import resolve
from llama_async_proxy.store.store import Store
from support.asgi import serving
from support.models import linked
from support.rig import FAKE_CLASSES, FAKE_LAUNCHER, QUICK
from support.service import clean_environment


@dataclass
class ServiceHarness:
    """A service in this process, reachable at `url`."""

    context: Context
    sockets: Sockets
    models_dir: Path
    url: str
    http: aiohttp.ClientSession

    def line(self, message: str) -> LogLine:
        return LogLine(self.context.now_ms(), LogLevel.INFO, "service", message)

    def log(self, *messages: str) -> None:
        """As the log pipeline does when a line was written."""
        for message in messages:
            self.context.bus.publish(LogWritten(self.line(message)))

    async def call(self, method: str, path: str, body: Any = None, **options: Any) -> tuple[int, Any]:
        """(status, JSON) of one request."""
        async with self.http.request(method, self.url + path, json=body, **options) as response:
            return response.status, json.loads(await response.read())


@contextlib.asynccontextmanager
async def house(directory: Path, model_files: Path, **settings: Any) -> AsyncIterator[ServiceHarness]:
    """`settings` by name, as given on the command line."""
    models_dir = linked(model_files, directory / "models")
    given = {"models_dir": str(models_dir), "data_dir": str(directory / "data"), **settings}
    configuration_at_start = resolve(command_line=given, environment={}, file={}, default_data_dir=directory)
    async with contextlib.AsyncExitStack() as stack:
        bus = EventBus()
        configuration = Configuration(configuration_at_start, bus)
        live = configuration.getter()
        store = await stack.enter_async_context(
            Store.open(configuration_at_start.database_path, log_max_rows=lambda: 1000)
        )
        engine = await stack.enter_async_context(
            WorkersEngine(
                EngineHooks(bus, lambda _: None, timing=QUICK), lambda: FAKE_LAUNCHER, environment=clean_environment()
            )
        )
        await engine.start()
        requests = RequestMeter()
        machine = Machine(HostProbe(directory), CombinedProbe(()))
        sampler = Sampler(
            machine, lambda: ServiceFacts(requests=requests.snapshot()), live, bus=bus, store=store.metrics.append
        )
        planner = LaunchPlanner(live, OptionPolicy(live, store.models.all, FAKE_CLASSES))
        names = Names(store.models.all, planner.preset_paths)
        memory = MemoryPlanner(live, lambda: engine.state, sampler)
        scheduler = ModelScheduler(
            engine,
            settings=live,
            models=store.models.all,
            spec_for=planner.spec,
            bus=bus,
            used=store.models.touch,
            memory=memory,
        )
        catalogue = CatalogueCache(lambda: engine.state, directory.parent / "options")  # shared by all tests
        active_preset = ActivePreset(
            planner,
            catalogue,
            configuration=configuration,
            store=store,
            engine=engine,
            scheduler=scheduler,
            bus=bus,
        )
        live_requests = InFlightRequests(
            scheduler.runtime, bus, positions=scheduler.positions, finished=store.requests.append
        )
        stack.callback(live_requests.record)
        pool = ConnectionPool(live)
        stack.callback(pool.close)
        upstream = UpstreamClient(pool)
        completer = Completer(
            names=names,
            scheduler=scheduler,
            client=upstream,
            live=live_requests,
        )
        answers = await stack.enter_async_context(
            Answers(store.turns, completer, suggest_title=store.chats.suggest_title, settings=live, bus=bus)
        )
        context = Context(
            configuration=configuration,
            catalogue=catalogue,
            planner=planner,
            active_preset=active_preset,
            store=store,
            names=names,
            engine=engine,
            scheduler=scheduler,
            memory=memory,
            live=live_requests,
            answers=answers,
            sampler=sampler,
            requests=requests,
            connections=ConnectionMeter(time.monotonic),
            engine_counters=EngineCounters(upstream.get, time.monotonic),
            log_files=LogFiles(configuration_at_start.logs_dir, max_bytes=1 << 20, max_files=3),
            bus=bus,
            now_ms=lambda: time.time_ns() // 1_000_000,
            started_at_ms=time.time_ns() // 1_000_000,
        )
        await scan_models(context, ScanModels())
        sockets = Sockets(lambda: context)
        runs = (sampler.run, context.scheduler.run, live_requests.run, sockets.run, active_preset.run)
        background = [asyncio.create_task(run()) for run in runs]
        await asyncio.sleep(0)  # they listen before anything happens
        stack.push_async_callback(_cancelled, background)
        port = await stack.enter_async_context(serving(_asgi(context, sockets)))
        stack.push_async_callback(sockets.close)
        http = await stack.enter_async_context(aiohttp.ClientSession())
        yield ServiceHarness(context, sockets, models_dir, f"http://127.0.0.1:{port}", http)


async def _cancelled(tasks: list[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    for result in await asyncio.gather(*tasks, return_exceptions=True):
        assert isinstance(result, asyncio.CancelledError), result


_ASKED: ContextVar[Context] = ContextVar("the house that a request came to")


@functools.cache
def _rest() -> ASGIApp:
    """One for every house: making its hundred routes takes longer than a test."""
    return create_rest(_ASKED.get)


def _asgi(context: Context, sockets: Sockets) -> ASGIApp:
    async def by_path(scope: Scope, receive: Receive, send: Send) -> None:
        _ASKED.set(context)
        await _rest()(scope, receive, send)

    inner = socketio.ASGIApp(sockets.server, by_path, socketio_path="socket.io")
    with_sockets = socketio.ASGIApp(sockets.server, inner, socketio_path="llamaproxws")
    return SecurityMiddleware(
        MeteringMiddleware(with_sockets, context.requests), context.configuration.getter(), is_page
    )


def answers(request_id: str) -> Callable[[Any], bool]:
    """Whether a message answers that request."""
    return lambda answer: answer["requestId"] == request_id


class Client:
    """A Socket.IO client that keeps what it received."""

    def __init__(self, namespace: str) -> None:
        self.namespace = namespace
        self.socket = socketio.AsyncClient(reconnection=False)
        self.received: list[tuple[str, Any]] = []
        self._arrived = asyncio.Event()
        self.socket.on("*", self._keep, namespace=namespace)

    async def _keep(self, event: str, data: Any) -> None:
        self.received.append((event, data))
        self._arrived.set()

    async def emit(self, event: str, data: Any = None) -> None:
        await self.socket.emit(event, data, namespace=self.namespace)

    async def ask(self, event: str, data: Any = None) -> Any:
        """The acknowledgement."""
        return await self.socket.call(event, data, namespace=self.namespace, timeout=20)

    async def until(self, event: str, condition: Callable[[Any], object] = lambda _: True) -> Any:
        """The first message of that name for which `condition` holds, past or to come."""
        seen = 0
        async with asyncio.timeout(20):
            while True:
                for name, data in self.received[seen:]:
                    seen += 1
                    if name == event and condition(data):
                        return data
                self._arrived.clear()
                await self._arrived.wait()

    def all(self, event: str) -> list[Any]:
        return [data for name, data in self.received if name == event]


@contextlib.asynccontextmanager
async def client(
    at: ServiceHarness, namespace: str = "/", *, path: str = "llamaproxws", transport: str = "websocket"
) -> AsyncIterator[Client]:
    connected = Client(namespace)
    await connected.socket.connect(at.url, socketio_path=path, namespaces=[namespace], transports=[transport])
    try:
        yield connected
    finally:
        await connected.socket.disconnect()
