"""The inference app as the service builds it, on the real uvicorn, over processes that run already."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import httpx

from llama_async_proxy.api.http.protocol import FastPathParts, http_protocol
from llama_async_proxy.api.inference.app import InferenceApp
from llama_async_proxy.events import EventBus
from llama_async_proxy.inference.fast_path import FastPath
from llama_async_proxy.inference.in_flight import InFlightRequests
from llama_async_proxy.inference.proxy import Proxy
from llama_async_proxy.inference.requests.names import Names
from llama_async_proxy.inference.response_writer import KeepAliveComments
from llama_async_proxy.inference.scheduling.scheduler import ModelScheduler
from llama_async_proxy.inference.scheduling.snapshot import SchedulerContext
from llama_async_proxy.inference.upstream.client import UpstreamClient
from llama_async_proxy.inference.upstream.connection_pool import ConnectionPool
from llama_async_proxy.monitor.requests import RequestMeter
from llama_async_proxy.records.models import Model
from llama_async_proxy.records.requests import RequestRecord
from llama_async_proxy.records.runtime import Endpoint
from support.asgi import serving
from support.upstream import RunningEngine, Upstream, answers, make_model, make_settings, make_spec

CHAT = "/v1/chat/completions"
STREAM = {"model": "tiny", "stream": True}


class KnownRegistry:
    """A registry whose first scan has ended, without default models."""

    has_scanned = True

    async def wait_for(self, is_known: Callable[[], bool]) -> None:
        pass

    def default_model(self, kind: str) -> str:
        return ""


class Site:
    keep_alive_s = 600
    """Of a connection without a request."""

    def __init__(self, models: tuple[Model, ...], *, fast_path: bool = False, **settings: Any) -> None:
        self._fast_path = fast_path
        self.models = models
        self.settings = make_settings(**settings)
        self.meter = RequestMeter()
        self._records: list[RequestRecord] = []
        self._recorded = asyncio.Event()

    @asynccontextmanager
    async def served(
        self, endpoints: Mapping[int, Endpoint], keep_alive: KeepAliveComments | None = None
    ) -> AsyncIterator[None]:
        bus = EventBus()
        names = Names(lambda: self.models)
        self.engine = RunningEngine(bus, endpoints)
        self.scheduler = ModelScheduler(
            self.engine,
            SchedulerContext(
                settings=lambda: self.settings, models=lambda: self.models, spec_for=make_spec, on_use=lambda *_: None
            ),
            bus,
        )
        self.in_flight = InFlightRequests(
            self.scheduler.runtime, bus, positions=self.scheduler.queue_positions, finished=self._finished
        )
        pool = ConnectionPool(lambda: self.settings)
        proxy = Proxy(
            names=names,
            scheduler=self.scheduler,
            client=UpstreamClient(pool),
            in_flight=self.in_flight,
            registry=KnownRegistry(),
            keep_alive=keep_alive or KeepAliveComments(),
        )
        door = InferenceApp(proxy, names=names, runtime=self.engine.runtime, settings=lambda: self.settings)
        async with AsyncExitStack() as stack:
            stack.callback(pool.close)
            http: Any = "httptools"
            if self._fast_path:
                self.fast_path = FastPath(
                    pool=pool,
                    names=names,
                    scheduler=self.scheduler,
                    in_flight=self.in_flight,
                )
                http = http_protocol(FastPathParts(self.fast_path, self.meter))
            self.port = await stack.enter_async_context(serving(door, http, keep_alive_s=self.keep_alive_s))
            self.url = f"http://127.0.0.1:{self.port}"
            # Reading the certificates that nobody asks for takes longer than most tests.
            client_of_tests = httpx.AsyncClient(base_url=self.url, timeout=30, verify=False)
            self.http = await stack.enter_async_context(client_of_tests)
            yield

    def _finished(self, records: Sequence[RequestRecord]) -> None:
        self._records.extend(records)
        self._recorded.set()

    @property
    def records(self) -> list[RequestRecord]:
        """Of the requests that have ended."""
        self.in_flight.record()
        return self._records

    async def record(self) -> RequestRecord:
        """The one record there is, waiting for it."""
        async with asyncio.timeout(30):
            await self._recorded.wait()
        [record] = self.records
        return record


class UpstreamSite(Site):
    """Model "tiny" runs on `upstream`, "other" on a second one."""

    default_fast_path = False
    """True puts the fast path in front of the slow path, for tests that do not choose."""

    def __init__(self, *, fast_path: bool | None = None, **settings: Any) -> None:
        models = (make_model(1, "tiny", name="Tiny", aliases=("gpt-4o",)), make_model(2, "other"))
        super().__init__(models, fast_path=self.default_fast_path if fast_path is None else fast_path, **settings)
        self.upstream = Upstream()
        self.other = Upstream(answers({"from": "other"}))

    @asynccontextmanager
    async def running(self, keep_alive: KeepAliveComments | None = None) -> AsyncIterator[UpstreamSite]:
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(self.upstream.serving())
            await stack.enter_async_context(self.other.serving())
            endpoints = {1: self.upstream.endpoint, 2: self.other.endpoint}
            await stack.enter_async_context(self.served(endpoints, keep_alive))
            yield self

    async def stream(self, path: str = CHAT, **body: Any) -> httpx.Response:
        return await self.http.post(path, json={**STREAM, **body})
