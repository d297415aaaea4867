"""The routes of the engine as a whole."""

from __future__ import annotations

from fastapi import APIRouter

from llama_async_proxy.api.rest.engine_schema import EngineData, engine_data
from llama_async_proxy.api.rest.models import scan_models
from llama_async_proxy.api.rest.models_schema import Scanned
from llama_async_proxy.api.rest.route_policy import Live, Route, routes_of
from llama_async_proxy.api.rest.schema import Answer
from llama_async_proxy.operations import engine as engine_operations
from llama_async_proxy.operations.engine import EngineView, GetEngine, RestartEngine, StartEngine, StopEngine


async def get_engine(context: Live) -> Answer[EngineData]:
    """What runs the models, and where inference is answered."""
    return _engine(await engine_operations.get_engine(context, GetEngine()))


async def start_engine(context: Live) -> Answer[EngineData]:
    """Be ready to load models; nothing happens when it is."""
    return _engine(await engine_operations.start_engine(context, StartEngine()), "Engine started")


async def stop_engine(context: Live) -> Answer[EngineData]:
    """Unload all models and refuse to load any until the next start."""
    return _engine(await engine_operations.stop_engine(context, StopEngine()), "Engine stopped")


async def restart_engine(context: Live) -> Answer[EngineData]:
    """Stop, wait two seconds, start."""
    return _engine(await engine_operations.restart_engine(context, RestartEngine()), "Engine restarted")


def _engine(view: EngineView, message: str | None = None) -> Answer[EngineData]:
    return Answer(data=engine_data(view), message=message)


_ENGINE = Answer[EngineData]

_ROUTES: tuple[Route, ...] = (
    Route("GET", "/api/llama-server", get_engine, _ENGINE),
    Route("POST", "/api/llama-server/start", start_engine, _ENGINE, (503,)),
    Route("POST", "/api/llama-server/stop", stop_engine, _ENGINE, (409,)),
    Route("POST", "/api/llama-server/restart", restart_engine, _ENGINE, (503,)),
    Route("POST", "/api/llama-server/rescan", scan_models, Answer[Scanned], (400, 503), "rescan"),
)


def engine_routes() -> APIRouter:
    return routes_of("engine", _ROUTES)
