"""The composition root: builds every part, joins them, starts and stops them in order. The only file that knows all."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping, Sequence
from pathlib import Path
from typing import Protocol

import socketio
from msgspec import Struct, field
from starlette.types import ASGIApp, Receive, Scope, Send

from llama_async_proxy.api.http.access import SecurityMiddleware, accepts_origin
from llama_async_proxy.api.http.metering import MeteringMiddleware
from llama_async_proxy.api.http.protocol import FastPathParts, http_protocol
from llama_async_proxy.api.http.server import Goodbye, Server, listen
from llama_async_proxy.api.inference.app import InferenceApp
from llama_async_proxy.api.inference.llama_router import LlamaRouterApp
from llama_async_proxy.api.prometheus import PrometheusApp
from llama_async_proxy.api.rest.mount import RestMount
from llama_async_proxy.api.socketio.ack.namespace import AckNamespace
from llama_async_proxy.api.socketio.server import SocketIoServer
from llama_async_proxy.api.socketio.v1.namespace import V1Namespace
from llama_async_proxy.api.ui.namespace import UiNamespace
from llama_async_proxy.api.ui.static import is_navigation, is_page, static_app
from llama_async_proxy.chats.answers import Answers
from llama_async_proxy.engines.contract import Engine
from llama_async_proxy.engines.discovery import Launcher, find_launcher
from llama_async_proxy.engines.environment import passed_environment
from llama_async_proxy.engines.local_router import LocalRouter
from llama_async_proxy.engines.options_cache import EngineOptionsCache
from llama_async_proxy.engines.process import private_bytes_of
from llama_async_proxy.engines.remote_router import RemoteRouter
from llama_async_proxy.engines.router import RouterEngine
from llama_async_proxy.engines.supervised import EngineHooks
from llama_async_proxy.engines.supervisor import Timing
from llama_async_proxy.engines.workers import WorkersEngine
from llama_async_proxy.errors import EngineMissing, ServiceError
from llama_async_proxy.events import EventBus, RequestsFinished, SettingsChanged
from llama_async_proxy.inference.completion import Completer
from llama_async_proxy.inference.fast_path import FastPath
from llama_async_proxy.inference.in_flight import InFlightRequests
from llama_async_proxy.inference.proxy import Proxy
from llama_async_proxy.inference.requests.names import Names
from llama_async_proxy.inference.scheduling.scheduler import ModelScheduler
from llama_async_proxy.inference.scheduling.snapshot import SchedulerContext
from llama_async_proxy.inference.upstream.client import UpstreamClient
from llama_async_proxy.inference.upstream.connection_pool import ConnectionPool
from llama_async_proxy.monitor.connections import ConnectionMeter
from llama_async_proxy.monitor.engine_counters import EngineCounters
from llama_async_proxy.monitor.gpu import GpuProbe, machine_gpus
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
from llama_async_proxy.operations.model_scanner import ModelScanner
from llama_async_proxy.operations.option_policy import OptionPolicy
from llama_async_proxy.operations.presets import make_default_preset
from llama_async_proxy.operations.routers import register_found, registered_specs, router_options
from llama_async_proxy.presets.option_classes import OPTION_CLASSES, OptionClass
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
            running = (*application.background, *application.first_steps)
            background = [tasks.create_task(_kept_running(task)) for task in running]
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


class Seams(Struct, frozen=True):
    """Places where the service meets the machine. A test passes stand-ins and builds everything else as `run` does."""

    find_launcher: Callable[[str, str], Launcher] = find_launcher
    """(setting `engine`, path of the program) -> the program that runs models. Raises EngineMissing."""
    environment: Mapping[str, str] = field(default_factory=lambda: os.environ)
    """Environment that models' processes get a part of."""
    timing: Timing = Timing()
    """When models' processes are started again and how long they have to stop."""
    gpus: Callable[[], GpuProbe] = machine_gpus
    option_classes: Mapping[str, OptionClass] = field(default_factory=lambda: OPTION_CLASSES)
    option_cache: Path | None = None
    """Directory of the options that engines' programs know; None: in the data directory."""
    rest: Callable[[Callable[[], Context]], ASGIApp] = RestMount
    """Makes the application below /api."""
    clock: Callable[[], float] = time.time
    """Seconds since the Unix epoch."""


class Application(Struct, frozen=True):
    asgi: ASGIApp
    fast_path: FastPathParts
    context: Context
    sockets: SocketIoServer
    background: tuple[Callable[[], Awaitable[None]], ...]
    """To be run while serving, until cancelled."""
    first_steps: tuple[Callable[[], Awaitable[None]], ...]
    """To be run once, while serving already; they end by themselves."""
    goodbye: Goodbye


@contextlib.asynccontextmanager
async def build(settings: Settings, seams: Seams | None = None) -> AsyncIterator[Application]:
    """Everything but the server, started; stopped in reverse when the block ends. Raises ServiceError."""
    async with contextlib.AsyncExitStack() as stack:
        base = await _base(stack, settings, seams or Seams())
        models = await _models(stack, base)
        data_path = _data_path(stack, base, models)
        context = await _context(stack, base, models, data_path)
        await _start_engine(models.engine)
        if settings.preset:
            await context.active_preset.restore()
        yield _application(base, data_path, context)


class _Base(Struct, frozen=True):
    """Parts that every other part needs."""

    seams: Seams
    started_at_ms: int
    bus: EventBus
    configuration: Configuration
    store: Store
    logs: LogPipeline

    @property
    def settings(self) -> Callable[[], Settings]:
        """Gives the settings in force."""
        return self.configuration.getter()

    def now_ms(self) -> int:
        return int(1000 * self.seams.clock())


class _Models(Struct, frozen=True):
    """Parts that run models and decide which ones run."""

    planner: LaunchPlanner
    names: Names
    engine: Engine
    requests: RequestMeter
    sampler: Sampler
    memory: MemoryPlanner
    scheduler: ModelScheduler
    scanner: ModelScanner


class _DataPath(Struct, frozen=True):
    """Parts that an inference request goes through."""

    in_flight: InFlightRequests
    totals: InferenceTotals
    client: UpstreamClient
    completer: Completer
    proxy: Proxy
    fast_path: FastPath


async def _base(stack: contextlib.AsyncExitStack, settings: Settings, seams: Seams) -> _Base:
    bus = EventBus()
    configuration = Configuration(settings, bus)
    live = configuration.getter()
    opening = Store.open(settings.database_path, log_max_rows=lambda: live().log_max_rows)
    store = await stack.enter_async_context(opening)
    logs = await stack.enter_async_context(_log_pipeline(settings, bus, store))
    return _Base(seams, int(1000 * seams.clock()), bus, configuration, store, logs)


async def _models(stack: contextlib.AsyncExitStack, base: _Base) -> _Models:
    live, store = base.settings, base.store
    policy = OptionPolicy(live, store.models.all, base.seams.option_classes)
    planner = LaunchPlanner(live, policy)
    engine = await stack.enter_async_context(_engine(base, planner))
    requests = RequestMeter()
    machine = Machine(HostProbe(live().data_dir), base.seams.gpus())
    stack.callback(machine.close)
    sampler = Sampler(machine, lambda: _facts(base, engine, requests), live, bus=base.bus, store=store.metrics.append)
    memory = MemoryPlanner(live, lambda: engine.state, sampler)
    scheduler_context = SchedulerContext(
        settings=live, models=store.models.all, spec_for=planner.spec, on_use=store.models.touch, memory=memory
    )
    scheduler = ModelScheduler(engine, scheduler_context, base.bus)
    names = Names(store.models.all, planner.preset_paths)
    scanner = ModelScanner(store.models, settings=live, bus=base.bus)
    return _Models(planner, names, engine, requests, sampler, memory, scheduler, scanner)


def _engine(base: _Base, planner: LaunchPlanner) -> contextlib.AbstractAsyncContextManager[Engine]:
    live, store, seams = base.settings, base.store, base.seams
    settings = live()
    hooks = EngineHooks(base.bus, base.logs.write, clock=seams.clock, timing=seams.timing)
    environment = passed_environment(seams.environment, settings.engine_environment)

    def registered() -> tuple[LaunchSpec, ...]:
        return registered_specs(planner, store.models.all())

    if settings.engine != "router":
        return WorkersEngine(
            hooks, lambda: seams.find_launcher(live().engine, live().llama_server), environment=environment
        )
    if settings.router_url:
        elsewhere = RemoteRouter(settings.router_url, settings.router_api_key_file)
        return RouterEngine(
            elsewhere, hooks, registered=registered, on_models=lambda models: register_found(store, base.bus, models)
        )
    own = LocalRouter(
        find_launcher=lambda: seams.find_launcher("workers", live().llama_server),
        options=lambda: router_options(live()),
        registered=registered,
        preset_path=settings.data_dir / "router-models.ini",
        environment=environment,
    )
    return RouterEngine(own, hooks, registered=registered)


def _data_path(stack: contextlib.AsyncExitStack, base: _Base, models: _Models) -> _DataPath:
    names, scheduler = models.names, models.scheduler
    totals = InferenceTotals()

    def finished(records: Sequence[RequestRecord]) -> None:
        totals.add(records)
        base.store.requests.append(records)
        base.bus.publish(RequestsFinished(tuple(records)))

    in_flight = InFlightRequests(scheduler.runtime, base.bus, positions=scheduler.queue_positions, finished=finished)
    stack.callback(in_flight.record)
    pool = ConnectionPool(base.settings)
    stack.callback(pool.close)
    client = UpstreamClient(pool)
    return _DataPath(
        in_flight=in_flight,
        totals=totals,
        client=client,
        completer=Completer(names=names, scheduler=scheduler, client=client, in_flight=in_flight),
        proxy=Proxy(names=names, scheduler=scheduler, client=client, in_flight=in_flight, registry=models.scanner),
        fast_path=FastPath(pool=pool, names=names, scheduler=scheduler, in_flight=in_flight),
    )


async def _context(stack: contextlib.AsyncExitStack, base: _Base, models: _Models, data_path: _DataPath) -> Context:
    store, engine, live = base.store, models.engine, base.settings
    answers = await stack.enter_async_context(
        Answers(store.turns, data_path.completer, suggest_title=store.chats.suggest_title, settings=live, bus=base.bus)
    )
    option_cache = base.seams.option_cache or live().data_dir / "cache" / "options"
    catalogue = EngineOptionsCache(lambda: engine.state, option_cache)
    active_preset = ActivePreset(
        models.planner,
        catalogue,
        configuration=base.configuration,
        store=store,
        engine=engine,
        scheduler=models.scheduler,
        bus=base.bus,
    )
    return Context(
        configuration=base.configuration,
        catalogue=catalogue,
        planner=models.planner,
        active_preset=active_preset,
        store=store,
        scanner=models.scanner,
        names=models.names,
        engine=engine,
        scheduler=models.scheduler,
        memory=models.memory,
        in_flight=data_path.in_flight,
        answers=answers,
        sampler=models.sampler,
        requests=models.requests,
        totals=data_path.totals,
        connections=ConnectionMeter(time.monotonic),
        engine_counters=EngineCounters(data_path.client.get, time.monotonic),
        log_files=base.logs.files,
        bus=base.bus,
        now_ms=base.now_ms,
        started_at_ms=base.started_at_ms,
    )


def _application(base: _Base, data_path: _DataPath, context: Context) -> Application:
    """The ways in, and the tasks that run beside them."""
    sockets = SocketIoServer(
        lambda: context,
        (V1Namespace, AckNamespace, UiNamespace),
        meter=context.connections,
        accepts_origin=lambda scope: accepts_origin(scope, context.settings),
    )
    router = LlamaRouterApp(lambda: context, is_navigation)
    prometheus = PrometheusApp(lambda: context)
    inference = InferenceApp(
        data_path.proxy,
        names=context.names,
        runtime=context.scheduler.runtime,
        settings=base.settings,
    )
    rest = base.seams.rest(lambda: context)
    return Application(
        asgi=_asgi(context, sockets, (prometheus, router, inference), rest),
        fast_path=FastPathParts(data_path.fast_path, context.requests),
        context=context,
        sockets=sockets,
        background=(
            context.sampler.run,
            context.scheduler.run,
            context.in_flight.run,
            context.active_preset.run,
            sockets.run,
            router.run,
            lambda: _follow_logging(base.logs, context),
        ),
        first_steps=(lambda: _first_scan(context), lambda: _default_preset(context)),
        goodbye=lambda hurry: _goodbye(context, sockets, router, hurry),
    )


# --- parts of the service's life -----------------------------------------------------------------


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


async def _default_preset(context: Context) -> None:
    try:
        await make_default_preset(context)
    except ServiceError as exc:
        logger.warning("There is no default preset: %s", exc)


async def _first_scan(context: Context) -> None:
    root = context.configuration.settings.models_dir
    try:
        if root == context.configuration.settings.data_dir / "models":
            root.mkdir(parents=True, exist_ok=True)
        report = await context.scanner.scan()
    except (ServiceError, OSError) as exc:
        logger.warning("The models directory was not scanned: %s", exc)
        return
    logger.info("Models registered: %d, of them new: %d (scanned %s)", report.total, report.scanned, root)
    for broken in report.failed:
        logger.warning("Not a usable model: %s: %s", broken.path, broken.reason)


def _facts(base: _Base, engine: Engine, requests: RequestMeter) -> ServiceFacts:
    engine.measure()
    loaded = [r for r in engine.runtimes() if r.status in (ModelStatus.READY, ModelStatus.SLEEPING)]
    pids = tuple(runtime.pid for runtime in engine.runtimes() if runtime.pid is not None)
    return ServiceFacts(
        models_loaded=len(loaded),
        models_private_bytes=sum(private_bytes_of(pid) for pid in pids),
        model_pids=pids,
        models_memory_bytes=sum(r.rss_bytes or 0 for r in loaded),
        requests=requests.snapshot(),
        uptime_s=(base.now_ms() - base.started_at_ms) / 1000,
    )


async def _goodbye(
    context: Context, sockets: SocketIoServer, router: LlamaRouterApp, hurry: Callable[[], bool]
) -> None:
    """Running answers may end; then they are broken off, with an error their clients understand."""
    router.close()
    if not hurry():
        await context.scheduler.drain(context.configuration.settings.drain_s, hurry)
    context.scheduler.revoke_all()
    await sockets.close()


# --- dispatch -------------------------------------------------------------------------------------


class Door(Protocol):
    """An ASGI application that knows which requests are its own."""

    def handles(self, scope: Scope) -> bool: ...
    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None: ...


def _asgi(context: Context, sockets: SocketIoServer, doors: Sequence[Door], rest: ASGIApp) -> ASGIApp:
    """security -> metering -> the way in that the path belongs to."""
    live = context.configuration.getter()
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
