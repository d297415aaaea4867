"""The whole service as `app.build` makes it, with a quick program in llama-server's place."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import socketio
from starlette.types import ASGIApp, Receive, Scope, Send

from llama_async_proxy.api.http.protocol import http_protocol
from llama_async_proxy.api.rest.app import create_rest
from llama_async_proxy.api.socketio.server import SocketIoServer
from llama_async_proxy.app import Seams, build
from llama_async_proxy.events import LogWritten
from llama_async_proxy.monitor.gpu import CombinedProbe
from llama_async_proxy.operations.context import Context
from llama_async_proxy.records.logs import LogLevel, LogLine
from llama_async_proxy.settings import resolve
from support.asgi import serving
from support.models import linked
from support.rig import FAKE_CLASSES, FAKE_LAUNCHER, QUICK
from support.service import clean_environment


@dataclass
class ServiceHarness:
    """A service in this process, reachable at `url`."""

    context: Context
    sockets: SocketIoServer
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
    """`settings` by name, as given on the command line. The log goes to the store and to whoever watches it only."""
    models_dir = linked(model_files, directory / "models")
    given = {
        "models_dir": str(models_dir),
        "data_dir": str(directory / "data"),
        "log_console": False,
        "log_file": False,
        **settings,
    }
    at_start = resolve(command_line=given, environment={}, file={}, default_data_dir=directory)
    async with contextlib.AsyncExitStack() as stack:
        application = await stack.enter_async_context(build(at_start, seams(directory)))
        await asyncio.gather(*(step() for step in application.first_steps))
        background = [asyncio.ensure_future(run()) for run in application.background]
        await asyncio.sleep(0)  # they listen before anything happens
        stack.push_async_callback(_cancelled, background)
        http_of_service = http_protocol(application.fast_path)
        port = await stack.enter_async_context(serving(application.asgi, http_of_service))
        stack.push_async_callback(application.sockets.close)
        http = await stack.enter_async_context(aiohttp.ClientSession())
        yield ServiceHarness(application.context, application.sockets, models_dir, f"http://127.0.0.1:{port}", http)


def seams(directory: Path) -> Seams:
    """A quick program in llama-server's place, no GPUs, and caches that all tests share."""
    return Seams(
        find_launcher=lambda _engine, _path: FAKE_LAUNCHER,
        environment=clean_environment(),
        timing=QUICK,
        gpus=lambda: CombinedProbe(()),
        option_classes=FAKE_CLASSES,
        option_cache=directory.parent / "options",
        rest=_shared_rest,
    )


async def _cancelled(tasks: Sequence[asyncio.Future[None]]) -> None:
    for task in tasks:
        task.cancel()
    for result in await asyncio.gather(*tasks, return_exceptions=True):
        assert isinstance(result, asyncio.CancelledError), result


_CALLED: ContextVar[Callable[[], Context]] = ContextVar("context of the service that a request came to")


@functools.cache
def _rest() -> ASGIApp:
    """One application for all services: making its hundred routes takes longer than a test."""
    return create_rest(lambda: _CALLED.get()())


def _shared_rest(context: Callable[[], Context]) -> ASGIApp:
    async def called(scope: Scope, receive: Receive, send: Send) -> None:
        _CALLED.set(context)
        await _rest()(scope, receive, send)

    return called


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
    await connected.socket.connect(
        at.url, socketio_path=path, namespaces=[namespace], transports=[transport], wait_timeout=20
    )
    try:
        yield connected
    finally:
        await connected.socket.disconnect()
