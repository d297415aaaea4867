"""The engine as a whole: state, start, stop, restart."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from llama_async_proxy.api.rest.models import ScannedModels, scan_models
from llama_async_proxy.api.rest.routing import RestRoute, RouteTable, ServiceContext
from llama_async_proxy.api.rest.schema import CamelModel, RestAnswer
from llama_async_proxy.api.units import iso_time
from llama_async_proxy.operations import engine as engine_operations
from llama_async_proxy.operations.engine import EngineView, GetEngine, RestartEngine, StartEngine, StopEngine

# --- schema -----------------------------------------------------------------------------------------------------------


class EngineData(CamelModel):
    status: Literal["idle", "running", "error"]
    mode: Literal["router"] = "router"
    kind: str = Field(description="How models are run: workers, embedded, router.")
    host: str
    port: int
    url: str = Field(description="Where inference is answered.")
    binary: str | None = None
    version: str | None = None
    error: str | None = None
    started_at: str | None = None
    preset: str | None = Field(None, description="The one it runs with.")


# --- mapping ----------------------------------------------------------------------------------------------------------


def engine_data(view: EngineView) -> EngineData:
    state = view.state
    return EngineData(
        status=state.status.value,
        kind=state.kind,
        host=view.host,
        port=view.port,
        url=view.url,
        binary=state.binary,
        version=state.version,
        error=state.error,
        started_at=iso_time(state.started_at_ms),
        preset=view.preset,
    )


# --- routes -----------------------------------------------------------------------------------------------------------


async def get_engine(context: ServiceContext) -> RestAnswer[EngineData]:
    """What runs the models, and where inference is answered."""
    return engine_answer(await engine_operations.get_engine(context, GetEngine()))


async def start_engine(context: ServiceContext) -> RestAnswer[EngineData]:
    """Be ready to load models; nothing happens when it is."""
    return engine_answer(await engine_operations.start_engine(context, StartEngine()), "Engine started")


async def stop_engine(context: ServiceContext) -> RestAnswer[EngineData]:
    """Unload all models and refuse to load any until the next start."""
    return engine_answer(await engine_operations.stop_engine(context, StopEngine()), "Engine stopped")


async def restart_engine(context: ServiceContext) -> RestAnswer[EngineData]:
    """Stop, wait two seconds, start."""
    return engine_answer(await engine_operations.restart_engine(context, RestartEngine()), "Engine restarted")


def engine_answer(view: EngineView, message: str | None = None) -> RestAnswer[EngineData]:
    return RestAnswer(data=engine_data(view), message=message)


_ENGINE = RestAnswer[EngineData]

TABLES = (
    RouteTable(
        "engine",
        (
            RestRoute("GET", "/api/llama-server", get_engine, _ENGINE),
            RestRoute("POST", "/api/llama-server/start", start_engine, _ENGINE, (503,)),
            RestRoute("POST", "/api/llama-server/stop", stop_engine, _ENGINE, (409,)),
            RestRoute("POST", "/api/llama-server/restart", restart_engine, _ENGINE, (503,)),
            RestRoute("POST", "/api/llama-server/rescan", scan_models, RestAnswer[ScannedModels], (400, 503), "rescan"),
        ),
    ),
)
