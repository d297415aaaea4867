"""The inference door alone on uvicorn, without the rest of the service: `door_alone.py PORT ENGINE_PORT [asgi]`.

With `asgi` without the switch, too.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

import uvicorn
import uvloop

from llama_async_proxy.doors.inference import InferenceDoor
from llama_async_proxy.doors.switch import ShortWay, http_protocol
from llama_async_proxy.events import EventBus
from llama_async_proxy.inference.live import LiveRequests
from llama_async_proxy.inference.names import Names
from llama_async_proxy.inference.proxy import Proxy
from llama_async_proxy.inference.residency import Residency
from llama_async_proxy.inference.splice import Splicer
from llama_async_proxy.inference.upstream import UpstreamClient
from llama_async_proxy.monitor.requests import RequestMeter
from llama_async_proxy.records import (
    Endpoint,
    LaunchSpec,
    Model,
    ModelFacts,
    ModelKind,
    ModelOrigin,
    ModelRuntime,
    ModelStatus,
    OptionValue,
)
from llama_async_proxy.settings import resolve


class OneModelEngine:
    """An engine whose only model runs already."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._runtime = ModelRuntime(1, ModelStatus.READY, endpoint)

    def runtime(self, model_id: int) -> ModelRuntime:
        return self._runtime if model_id == 1 else ModelRuntime(model_id)

    def runtimes(self) -> tuple[ModelRuntime, ...]:
        return (self._runtime,)

    async def load(self, spec: LaunchSpec) -> ModelRuntime:
        return self.runtime(spec.model_id)

    async def unload(self, model_id: int, *, drain_s: float = 10.0) -> ModelRuntime:  # noqa: ARG002 - the contract's name
        return self.runtime(model_id)


def spec_for(model: Model, options: Mapping[str, OptionValue]) -> LaunchSpec:
    return LaunchSpec(model.id, model.slug, model.path, model.facts.kind, options)


def door(engine: OneModelEngine) -> tuple[InferenceDoor, Splicer]:
    settings = resolve(command_line={}, environment={}, file={}, default_data_dir=Path("/nonexistent"))
    facts = ModelFacts("llama", ModelKind.CHAT)
    models = (Model(1, "mock", "mock", "/mock.gguf", ModelOrigin.SCANNED, facts, size_bytes=1, mtime_ns=0),)
    names = Names(lambda: models)
    residency = Residency(
        engine,
        settings=lambda: settings,
        models=lambda: models,
        spec_for=spec_for,
        bus=EventBus(),
        used=lambda *_: None,
    )
    live = LiveRequests(residency.runtime, EventBus(), residency.positions)
    proxy = Proxy(
        names=names,
        residency=residency,
        client=UpstreamClient(),
        settings=lambda: settings,
        live=live,
        finished=lambda _: None,
    )
    splicer = Splicer(names=names, residency=residency, settings=lambda: settings, live=live, finished=lambda _: None)
    return InferenceDoor(proxy, names=names, runtime=engine.runtime, settings=lambda: settings), splicer


async def serve(port: int, engine_port: int, *, asgi_only: bool) -> None:
    app, splicer = door(OneModelEngine(Endpoint("127.0.0.1", engine_port)))
    http = "httptools" if asgi_only else http_protocol(ShortWay(splicer, RequestMeter()))
    config = uvicorn.Config(app, port=port, http=http, lifespan="off", log_level="warning", access_log=False)
    await uvicorn.Server(config).serve()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1]), int(sys.argv[2]), asgi_only=sys.argv[3:] == ["asgi"]))
