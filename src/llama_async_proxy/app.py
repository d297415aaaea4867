"""The composition root: builds every part, joins them, starts and stops them in order. The only file that knows all."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import socketio
from starlette.types import ASGIApp, Receive, Scope, Send

from llama_async_proxy.api.http.access import SecurityMiddleware
from llama_async_proxy.api.http.metering import MeteringMiddleware
from llama_async_proxy.api.http.protocol import ShortWay, http_protocol
from llama_async_proxy.api.http.server import Goodbye, Server, listen
from llama_async_proxy.api.inference.app import InferenceApp
from llama_async_proxy.api.inference.llama_router import LlamaRouterApp
from llama_async_proxy.api.prometheus import PrometheusApp
from llama_async_proxy.api.rest.app import create_rest
from llama_async_proxy.api.socketio.server import Sockets
from llama_async_proxy.api.ui.static import is_page, static_app
from llama_async_proxy.chats.answers import Answers
from llama_async_proxy.engines.catalogue import CatalogueCache
from llama_async_proxy.engines.contract import Engine
from llama_async_proxy.engines.discovery import find_launcher
from llama_async_proxy.engines.environment import passed_environment
from llama_async_proxy.engines.fleet import EngineHooks
from llama_async_proxy.engines.process import private_bytes_of
from llama_async_proxy.engines.router import RouterEngine
from llama_async_proxy.engines.router_host import OwnRouter, RemoteRouter
from llama_async_proxy.engines.workers import WorkersEngine
from llama_async_proxy.errors import EngineMissing, ServiceError
from llama_async_proxy.events import EventBus, RequestsFinished, SettingsChanged
from llama_async_proxy.inference.completion import Completer
from llama_async_proxy.inference.fast_path import FastPath
from llama_async_proxy.inference.in_flight import InFlightRequests
from llama_async_proxy.inference.proxy import Proxy
from llama_async_proxy.inference.requests.names import Names
from llama_async_proxy.inference.scheduling.scheduler import ModelScheduler
from llama_async_proxy.inference.upstream.client import UpstreamClient
from llama_async_proxy.inference.upstream.connection_pool import ConnectionPool
from llama_async_proxy.monitor.connections import ConnectionMeter
from llama_async_proxy.monitor.engine_counters import EngineCounters
from llama_async_proxy.monitor.gpu import machine_gpus
from llama_async_proxy.monitor.host import HostProbe
from llama_async_proxy.monitor.logfiles import LogFiles
from llama_async_proxy.monitor.logs import LogPipeline
from llama_async_proxy.monitor.requests import RequestMeter
from llama_async_proxy.monitor.sampler import Machine, Sampler, ServiceFacts
from llama_async_proxy.monitor.totals import InferenceTotals
from llama_async_proxy.operations.active_preset import ActivePreset
from llama_async_proxy.operations.configuration import Configuration
from llama_async_proxy.operations.context import Context
from llama_async_proxy.operations.engine import describe_engine
from llama_async_proxy.operations.launch import LaunchPlanner
from llama_async_proxy.operations.memory import MemoryPlanner
from llama_async_proxy.operations.models import ScanModels, scan_models
from llama_async_proxy.operations.option_policy import OptionPolicy
from llama_async_proxy.operations.presets import make_default_preset
from llama_async_proxy.operations.routers import register_found, registered_specs, router_options
from llama_async_proxy.records.logs import LogLevel
from llama_async_proxy.records.requests import RequestRecord
from llama_async_proxy.records.runtime import LaunchSpec, ModelStatus
from llama_async_proxy.settings import Settings
from llama_async_proxy.store.store import Store

logger = logging.getLogger(__name__)

WEB_DIR = Path(__file__).parent / "web"
_RESTART_PAUSE_S = 1.0
_COLLECT_AFTER = (10_000, 10, 20)
"""Allocations until the young are collected, and how often that until the older ones are: rarely enough for a storm of
clients, often enough that what libraries leave in cycles does not pile up."""


def run(settings: Settings) -> int:
    """Serve until SIGINT or SIGTERM; returns the exit status. Raises ServiceError when it cannot start."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(listener) for listener in listen(settings.host, settings.port)]
        _run_loop(_serve(settings, sockets))
    return 0


def _run_loop(main: Coroutine[object, object, None]) -> None:
    """On uvloop where it is installed, else on asyncio's own loop: the same, slower."""
    try:
        import uvloop
    except ImportError:
        asyncio.run(main)
    else:
        uvloop.run(main)


async def _serve(settings: Settings, sockets: list[socket.socket]) -> None:
    async with build(settings) as application:
        server = Server(application.asgi, http_protocol(application.fast_path), application.goodbye)
        async with asyncio.TaskGroup() as tasks:
            background = [tasks.create_task(_kept_running(task)) for task in application.background]
            _calm_collector()
            logger.info("Serving on %s", " and ".join(_url(listener) for listener in sockets))
            await server.serve(sockets)
            logger.info("Stopping")
            for task in background:
                task.cancel()


def _calm_collector() -> None:
    """With thousands of connections a full garbage collection stops everything for a third of a second, and while they
    come one follows the other. What is there now stays for good and need not be looked at again.
    """
    gc.freeze()
    gc.set_threshold(*_COLLECT_AFTER)


async def _kept_running(task: Callable[[], Awaitable[None]]) -> None:
    """A fault in one of the background tasks must neither end the service nor pass in silence."""
    while True:
        try:
            return await task()
        except Exception:
            logger.exception("A background task failed; it is started again")
            current = asyncio.current_task()
            if current is not None and current.cancelling():
                return None  # a fault on its way out hides that it was told to end
            await asyncio.sleep(_RESTART_PAUSE_S)


# --- building -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Application:
    asgi: ASGIApp
    fast_path: ShortWay
    context: Context
    background: tuple[Callable[[], Awaitable[None]], ...]
    """To be run while serving; they end when cancelled, or by themselves."""
    goodbye: Goodbye


@contextlib.asynccontextmanager
async def build(settings: Settings) -> AsyncIterator[Application]:
    """Everything but the server, started; stopped in reverse when the block ends. Raises ServiceError."""
    started_at_ms = _now_ms()
    bus = EventBus()
    configuration = Configuration(settings, bus)
    live = configuration.getter()
    async with contextlib.AsyncExitStack() as stack:
        store = await stack.enter_async_context(
            Store.open(settings.database_path, log_max_rows=lambda: live().log_max_rows)
        )
        logs = await stack.enter_async_context(_log_pipeline(settings, bus, store))
        planner = LaunchPlanner(live, OptionPolicy(live, store.models.all))
        engine = await stack.enter_async_context(_engine(live, EngineHooks(bus, logs.write), planner, store))
        names = Names(store.models.all, planner.preset_paths)
        requests = RequestMeter()
        machine = Machine(HostProbe(settings.data_dir), machine_gpus())
        stack.callback(machine.close)
        sampler = Sampler(
            machine, lambda: _facts(engine, requests, started_at_ms), live, bus=bus, store=store.metrics.append
        )
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
        totals = InferenceTotals()

        def finished(records: Sequence[RequestRecord]) -> None:
            totals.add(records)
            store.requests.append(records)
            bus.publish(RequestsFinished(tuple(records)))

        live_requests = InFlightRequests(scheduler.runtime, bus, positions=scheduler.positions, finished=finished)
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
        catalogue = CatalogueCache(lambda: engine.state, settings.data_dir / "cache" / "options")
        active_preset = ActivePreset(
            planner,
            catalogue,
            configuration=configuration,
            store=store,
            engine=engine,
            scheduler=scheduler,
            bus=bus,
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
            log_files=logs.files,
            bus=bus,
            now_ms=_now_ms,
            started_at_ms=started_at_ms,
        )
        sockets = Sockets(lambda: context)
        router = LlamaRouterApp(lambda: context)
        proxy = Proxy(
            names=names,
            scheduler=scheduler,
            client=upstream,
            live=live_requests,
        )
        splicer = FastPath(
            pool=pool,
            names=names,
            scheduler=scheduler,
            live=live_requests,
        )
        inference = InferenceApp(proxy, names=names, runtime=scheduler.runtime, settings=live)
        await _start_engine(engine)
        if settings.preset:
            await active_preset.restore()
        yield Application(
            asgi=_asgi(context, sockets, (PrometheusApp(lambda: context, totals), router, inference)),
            fast_path=ShortWay(splicer, requests),
            context=context,
            background=(
                sampler.run,
                scheduler.run,
                live_requests.run,
                sockets.run,
                router.run,
                lambda: _follow_logging(logs, context),
                lambda: _first_scan(context),
                lambda: _run_presets(context),
            ),
            goodbye=lambda hurry: _goodbye(context, sockets, router, hurry),
        )


def _engine(
    live: Callable[[], Settings], outlets: EngineHooks, planner: LaunchPlanner, store: Store
) -> contextlib.AbstractAsyncContextManager[Engine]:
    def registered() -> tuple[LaunchSpec, ...]:
        return registered_specs(planner, store.models.all())

    settings = live()
    environment = passed_environment(os.environ, settings.engine_environment)
    if settings.engine != "router":
        return WorkersEngine(
            outlets, lambda: find_launcher(live().engine, live().llama_server), environment=environment
        )
    if settings.router_url:
        elsewhere = RemoteRouter(settings.router_url, settings.router_api_key_file)
        return RouterEngine(
            elsewhere, outlets, registered=registered, found=lambda models: register_found(store, outlets.bus, models)
        )
    own = OwnRouter(
        find_launcher=lambda: find_launcher("workers", live().llama_server),
        options=lambda: router_options(live()),
        registered=registered,
        preset_path=settings.data_dir / "router-models.ini",
        environment=environment,
    )
    return RouterEngine(own, outlets, registered=registered)


def _log_pipeline(settings: Settings, bus: EventBus, store: Store) -> LogPipeline:
    files = LogFiles(settings.logs_dir, max_bytes=settings.log_max_mib << 20, max_files=settings.log_max_files)
    logs = LogPipeline(bus, store.logs.append, files)
    _set_up(logs, settings)
    return logs


async def _follow_logging(logs: LogPipeline, context: Context) -> None:
    with context.bus.subscribe(SettingsChanged) as changes:
        async for _ in changes:
            _set_up(logs, context.configuration.settings)


def _set_up(logs: LogPipeline, settings: Settings) -> None:
    logs.level = LogLevel(settings.log_level)
    logs.write_to(console=settings.log_console, files=settings.log_file)
    logs.files.max_bytes = settings.log_max_mib << 20
    logs.files.max_files = settings.log_max_files


async def _start_engine(engine: Engine) -> None:
    """A service without an engine still lists models, shows why, and can be given another path."""
    try:
        logger.info("Models are run by %s", describe_engine(await engine.start()))
    except EngineMissing as exc:
        logger.error("No engine: %s", exc.message)  # noqa: TRY400 - the sentence says it all


async def _run_presets(context: Context) -> None:
    try:
        await make_default_preset(context)
    except ServiceError as exc:
        logger.warning("There is no default preset: %s", exc)
    await context.active_preset.run()


async def _first_scan(context: Context) -> None:
    root = context.configuration.settings.models_dir
    try:
        if root == context.configuration.settings.data_dir / "models":
            root.mkdir(parents=True, exist_ok=True)
        report = await scan_models(context, ScanModels())
    except (ServiceError, OSError) as exc:
        logger.warning("The models directory was not scanned: %s", exc)
        return
    logger.info("Models registered: %d, of them new: %d (scanned %s)", report.total, report.scanned, root)
    for broken in report.failed:
        logger.warning("Not a usable model: %s: %s", broken.path, broken.reason)


def _facts(engine: Engine, requests: RequestMeter, started_at_ms: int) -> ServiceFacts:
    engine.measure()
    loaded = [r for r in engine.runtimes() if r.status in (ModelStatus.READY, ModelStatus.SLEEPING)]
    pids = tuple(runtime.pid for runtime in engine.runtimes() if runtime.pid is not None)
    return ServiceFacts(
        models_loaded=len(loaded),
        models_private_bytes=sum(private_bytes_of(pid) for pid in pids),
        model_pids=pids,
        models_memory_bytes=sum(r.rss_bytes or 0 for r in loaded),
        requests=requests.snapshot(),
        uptime_s=(_now_ms() - started_at_ms) / 1000,
    )


async def _goodbye(context: Context, sockets: Sockets, router: LlamaRouterApp, hurry: Callable[[], bool]) -> None:
    """Running answers may end; then they are broken off, with an error their clients understand."""
    router.close()
    if not hurry():
        await context.scheduler.drain(context.configuration.settings.drain_s, hurry)
    context.scheduler.break_off()
    await sockets.close()


# --- dispatch -------------------------------------------------------------------------------------


class Door(Protocol):
    """An ASGI application that knows which requests are its own."""

    def handles(self, scope: Scope) -> bool: ...
    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None: ...


def _asgi(context: Context, sockets: Sockets, doors: Sequence[Door]) -> ASGIApp:
    """security -> metering -> the door the path belongs to."""
    live = context.configuration.getter()
    rest = create_rest(lambda: context)
    pages = static_app(WEB_DIR)

    async def by_path(scope: Scope, receive: Receive, send: Send) -> None:
        for special in doors:
            if special.handles(scope):
                return await special(scope, receive, send)
        path: str = scope["path"]
        door = rest if path == "/api" or path.startswith("/api/") else pages
        return await door(scope, receive, send)

    inner = socketio.ASGIApp(sockets.server, by_path, socketio_path="socket.io")
    with_sockets = socketio.ASGIApp(sockets.server, inner, socketio_path="llamaproxws")
    return SecurityMiddleware(MeteringMiddleware(with_sockets, context.requests), live, is_page)


def _url(listener: socket.socket) -> str:
    host, port, *_ = listener.getsockname()
    return f"http://[{host}]:{port}" if listener.family == socket.AF_INET6 else f"http://{host}:{port}"


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
