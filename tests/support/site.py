"""The inference door as the service builds it, on the real uvicorn, over processes that run already."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import httpx

from llama_async_proxy.doors.inference import InferenceDoor
from llama_async_proxy.events import EventBus
from llama_async_proxy.inference.delivery import Patience
from llama_async_proxy.inference.names import Names
from llama_async_proxy.inference.proxy import Proxy
from llama_async_proxy.inference.residency import Residency
from llama_async_proxy.inference.upstream import UpstreamClient
from llama_async_proxy.records import Endpoint, Model, RequestRecord
from support.asgi import serving
from support.upstream import RunningEngine, make_settings, make_spec


class Site:
    def __init__(self, models: tuple[Model, ...], **settings: Any) -> None:
        self.models = models
        self.settings = make_settings(**settings)
        self.records: list[RequestRecord] = []
        self._recorded = asyncio.Event()

    @asynccontextmanager
    async def served(self, endpoints: Mapping[int, Endpoint], patience: Patience | None = None) -> AsyncIterator[None]:
        bus = EventBus()
        names = Names(lambda: self.models)
        self.engine = RunningEngine(bus, endpoints)
        self.residency = Residency(
            self.engine,
            settings=lambda: self.settings,
            models=lambda: self.models,
            spec_for=make_spec,
            bus=bus,
            used=lambda *_: None,
        )
        client = UpstreamClient()
        proxy = Proxy(
            names=names,
            residency=self.residency,
            client=client,
            settings=lambda: self.settings,
            finished=self._finished,
            patience=patience or Patience(),
        )
        door = InferenceDoor(proxy, names=names, runtime=self.engine.runtime, settings=lambda: self.settings)
        async with AsyncExitStack() as stack:
            stack.callback(client.close)
            self.port = await stack.enter_async_context(serving(door))
            self.url = f"http://127.0.0.1:{self.port}"
            self.http = await stack.enter_async_context(httpx.AsyncClient(base_url=self.url, timeout=30))
            yield

    def _finished(self, record: RequestRecord) -> None:
        self.records.append(record)
        self._recorded.set()

    async def record(self) -> RequestRecord:
        """The one record there is, waiting for it."""
        async with asyncio.timeout(5):
            await self._recorded.wait()
        [record] = self.records
        return record
