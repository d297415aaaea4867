"""The REST door under /api: each route reads its input, runs one operation and renders what it answers.

Every failure, the framework's own included, is the one error answer of rest_wire. The OpenAPI document says the same.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse
from fastapi.routing import APIRoute
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from llama_async_proxy import __version__
from llama_async_proxy.doors import rest_wire as wire
from llama_async_proxy.doors.http_errors import error_body, error_envelope
from llama_async_proxy.doors.rest_chats import chat_routes
from llama_async_proxy.doors.rest_docs import docs_page
from llama_async_proxy.doors.rest_presets import preset_routes
from llama_async_proxy.errors import InvalidInput, NotFound, Overloaded, ServiceError, TooLarge
from llama_async_proxy.operations import table
from llama_async_proxy.operations.config import GetConfig, UpdateConfig
from llama_async_proxy.operations.engine import EngineView, GetEngine, RestartEngine, StartEngine, StopEngine
from llama_async_proxy.operations.estimate import EstimateMemory
from llama_async_proxy.operations.health import GetHealth, GetStatus
from llama_async_proxy.operations.metrics import GetHistory, GetMetrics
from llama_async_proxy.operations.models import (
    CleanUpModels,
    CreateModels,
    DeleteModel,
    DiscoverModels,
    GetModel,
    ListModels,
    LoadModel,
    ModelView,
    NewModel,
    ScanModels,
    UnloadModel,
    UpdateModel,
)
from llama_async_proxy.operations.services import Services
from llama_async_proxy.records import Variant

logger = logging.getLogger(__name__)

_BODY_LIMIT = 1 << 20


def create_rest(services: Callable[[], Services]) -> FastAPI:
    """The application for /api. `services` is asked for at every request, so it may be built later."""
    app = _Rest(
        title="Llama Async Proxy",
        version=__version__,
        summary="Finds GGUF models, runs llama.cpp for them, and tells how they and the machine are doing.",
        openapi_url="/api/openapi.json",
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        swagger_ui_oauth2_redirect_url=None,
    )
    app.state.services = services
    for route in _ROUTES:
        app.add_api_route(
            route.path,
            route.endpoint,
            methods=[route.method],
            tags=[route.tag],
            response_model=route.answer,
            response_model_exclude_none=not issubclass(route.answer, wire.ConfigAnswer),
            responses={status: {"model": model} for status, model in route.failures.items()},
            operation_id=route.operation_id or route.endpoint.__name__,
        )
    app.include_router(chat_routes())
    app.include_router(preset_routes())
    app.add_api_route("/api/docs", partial(_docs, app), include_in_schema=False, response_class=HTMLResponse)
    app.exception_handler(ServiceError)(_on_service_error)
    app.exception_handler(RequestValidationError)(_on_invalid_request)
    app.exception_handler(HTTPException)(_on_http_exception)
    app.add_middleware(_Edge)
    return app


class _Rest(FastAPI):
    def openapi(self) -> dict[str, Any]:
        """The document without the 422 that FastAPI promises for every route with input: ours are 400."""
        if self.openapi_schema is None:
            document = super().openapi()
            for operations in document["paths"].values():
                for operation in operations.values():
                    operation["responses"].pop("422", None)
            for unused in ("HTTPValidationError", "ValidationError"):
                document["components"]["schemas"].pop(unused, None)
        return super().openapi()


async def _docs(app: FastAPI) -> HTMLResponse:
    return HTMLResponse(docs_page(app.openapi()))


async def _services(request: Request) -> Services:
    services: Services = request.app.state.services()
    return services


Live = Annotated[Services, Depends(_services)]


# --- routes -----------------------------------------------------------------------------------------------------------


async def get_config(services: Live) -> wire.ConfigAnswer:
    """The configuration in force."""
    view = await table.CONFIG_GET.run(services, GetConfig())
    return wire.config_answer(view.settings)


async def update_config(services: Live, body: wire.ConfigBody) -> wire.ConfigUpdatedAnswer:
    """Change any part of the configuration: all of it or, when a value is wrong, nothing."""
    return wire.config_updated_answer(await table.CONFIG_UPDATE.run(services, UpdateConfig(body.changes)))


async def list_models(services: Live) -> wire.ModelsAnswer:
    """Registered models and how they are doing."""
    listed = await table.MODELS_LIST.run(services, ListModels())
    return wire.models_answer(listed, await table.ENGINE_GET.run(services, GetEngine()))


async def create_models(services: Live, body: wire.NewModelsBody) -> wire.Answer[wire.Registered]:
    """Register model files: all of them or none."""
    models = tuple(NewModel(**model.model_dump()) for model in body.models)
    created = await table.MODELS_CREATE.run(services, CreateModels(models))
    return wire.Answer(data=wire.registered(created), message="Models registered successfully")


async def discover_models(services: Live, body: wire.DiscoverBody | None = None) -> wire.Answer[wire.Discovered]:
    """Look for model files without registering them."""
    asked = body or wire.DiscoverBody()
    request = DiscoverModels(
        tuple(asked.paths), asked.recursive, tuple(asked.include_patterns), tuple(asked.exclude_patterns)
    )
    return wire.Answer(data=wire.discovered(await table.MODELS_DISCOVER.run(services, request)))


async def get_model(services: Live, model_id: str) -> wire.Answer[wire.RegisteredModel]:
    """One model, by its id or any other name of it."""
    return _model(await table.MODELS_GET.run(services, GetModel(model_id)))


async def update_model(services: Live, model_id: str, body: wire.ModelChangesBody) -> wire.Answer[wire.RegisteredModel]:
    """Change what is stored of a model. Its id never changes."""
    changes = body.model_dump(exclude={"aliases", "variants"})
    aliases = None if body.aliases is None else tuple(body.aliases)
    variants = None if body.variants is None else tuple(Variant(**variant.model_dump()) for variant in body.variants)
    request = UpdateModel(model_id, **changes, aliases=aliases, variants=variants)
    return _model(await table.MODELS_UPDATE.run(services, request), "Model updated successfully")


async def delete_model(services: Live, model_id: str) -> wire.Answer[wire.Removed]:
    """Forget a model. Its file stays."""
    deleted = await table.MODELS_DELETE.run(services, DeleteModel(model_id))
    return wire.Answer(data=wire.removed(deleted), message="Model removed successfully")


async def load_model(
    services: Live, model_id: str, body: wire.LoadBody | None = None
) -> wire.Answer[wire.RegisteredModel]:
    """Run a model; answers when it is ready."""
    options = body.options if body else {}
    return _model(await table.MODELS_LOAD.run(services, LoadModel(model_id, options)), "Model loaded successfully")


async def get_model_memory(
    services: Live,
    model_id: str,
    ctx_size: Annotated[int | None, Query(ge=0, description="Tokens of all slots; 0: as trained.")] = None,
    slots: Annotated[int | None, Query(ge=1, le=1024)] = None,
    gpu_layers: Annotated[int | None, Query(ge=0, description="Default: as many as fit.")] = None,
    cache_type: Annotated[str | None, Query(description="Of cached keys and values, such as f16 or q8_0.")] = None,
) -> wire.Answer[wire.ModelMemory]:
    """What a load would take, beside what is free and what the model takes while it runs."""
    asked = {
        "ctx-size": ctx_size,
        "parallel": slots,
        "n-gpu-layers": gpu_layers,
        "cache-type-k": cache_type,
        "cache-type-v": cache_type,
    }
    options = {name: value for name, value in asked.items() if value is not None}
    report = await table.MODELS_ESTIMATE.run(services, EstimateMemory(model_id, options))
    return wire.Answer(data=wire.model_memory(report))


async def unload_model(services: Live, model_id: str) -> wire.Answer[wire.RegisteredModel]:
    """Stop a model once its requests have ended."""
    return _model(await table.MODELS_UNLOAD.run(services, UnloadModel(model_id)), "Model unloaded successfully")


def _model(view: ModelView, message: str | None = None) -> wire.Answer[wire.RegisteredModel]:
    return wire.Answer(data=wire.registered_model(view), message=message)


async def scan_models(services: Live) -> wire.Answer[wire.Scanned]:
    """Register the new files of the models directory and refresh the changed ones."""
    report = await table.MODELS_SCAN.run(services, ScanModels())
    return wire.Answer(data=wire.scanned(report), message="Models directory scanned")


async def clean_up_models(services: Live) -> wire.Answer[wire.CleanedUp]:
    """Forget the models whose file is gone."""
    report = await table.MODELS_CLEANUP.run(services, CleanUpModels())
    return wire.Answer(data=wire.cleaned_up(report), message="Missing models removed")


async def get_health(services: Live) -> wire.Answer[wire.HealthData] | JSONResponse:
    """200 when all is well, 503 saying what is not."""
    health = await table.HEALTH_GET.run(services, GetHealth())
    if health.healthy:
        return wire.Answer(data=wire.health_data(health))
    return JSONResponse(wire.unhealthy(health).model_dump(by_alias=True, exclude_none=True), 503)


async def get_status(services: Live) -> wire.Answer[wire.StatusData]:
    """The service itself: versions, clients, models, requests."""
    return wire.Answer(data=wire.status_data(await table.STATUS_GET.run(services, GetStatus())))


async def get_metrics(services: Live) -> wire.Answer[wire.MonitoringData]:
    """The machine now."""
    metrics = await table.METRICS_GET.run(services, GetMetrics())
    status = await table.STATUS_GET.run(services, GetStatus())
    return wire.Answer(data=wire.monitoring_data(metrics, status.models_registered))


async def get_history(
    services: Live,
    hours: Annotated[float, Query(description="1 to 168.")] = 24,
    resolution: Annotated[str, Query(description="1m, 5m, 15m or 1h.")] = "5m",
) -> wire.Answer[wire.HistoryData]:
    """The machine before: means over equal pieces of time, oldest first."""
    history = await table.METRICS_HISTORY.run(services, GetHistory(hours, resolution))
    return wire.Answer(data=wire.history_data(history))


async def get_engine(services: Live) -> wire.Answer[wire.EngineData]:
    """What runs the models, and where inference is answered."""
    return _engine(await table.ENGINE_GET.run(services, GetEngine()))


async def start_engine(services: Live) -> wire.Answer[wire.EngineData]:
    """Be ready to load models; nothing happens when it is."""
    return _engine(await table.ENGINE_START.run(services, StartEngine()), "Engine started")


async def stop_engine(services: Live) -> wire.Answer[wire.EngineData]:
    """Unload all models and refuse to load any until the next start."""
    return _engine(await table.ENGINE_STOP.run(services, StopEngine()), "Engine stopped")


async def restart_engine(services: Live) -> wire.Answer[wire.EngineData]:
    """Stop, wait two seconds, start."""
    return _engine(await table.ENGINE_RESTART.run(services, RestartEngine()), "Engine restarted")


def _engine(view: EngineView, message: str | None = None) -> wire.Answer[wire.EngineData]:
    return wire.Answer(data=wire.engine_data(view), message=message)


@dataclass(frozen=True, slots=True)
class _Route:
    method: str
    path: str
    endpoint: Callable[..., Any]
    tag: str
    answer: type[BaseModel]
    errors: tuple[int, ...] = ()
    """Statuses it may fail with, besides 500."""
    operation_id: str = ""
    """In the OpenAPI document; by default the endpoint's name."""

    @property
    def failures(self) -> Mapping[int | str, type[BaseModel]]:
        unhealthy = self.answer is wire.Answer[wire.HealthData]
        return {
            status: wire.Unhealthy if unhealthy and status == 503 else wire.ErrorAnswer
            for status in (*self.errors, 500)
        }


_BODY = (400, 413, 415)
_MODEL = wire.Answer[wire.RegisteredModel]
_ENGINE = wire.Answer[wire.EngineData]

_ROUTES: tuple[_Route, ...] = (
    _Route("GET", "/api/config", get_config, "config", wire.ConfigAnswer),
    _Route("POST", "/api/config", update_config, "config", wire.ConfigUpdatedAnswer, (*_BODY, 403, 503)),
    _Route("GET", "/api/models", list_models, "models", wire.ModelsAnswer),
    _Route("POST", "/api/models", create_models, "models", wire.Answer[wire.Registered], (*_BODY, 409, 503)),
    _Route("POST", "/api/models/discover", discover_models, "models", wire.Answer[wire.Discovered], _BODY),
    _Route("POST", "/api/models/scan", scan_models, "models", wire.Answer[wire.Scanned], (400, 503)),
    _Route("POST", "/api/models/cleanup", clean_up_models, "models", wire.Answer[wire.CleanedUp], (503,)),
    _Route("GET", "/api/models/{model_id}", get_model, "models", _MODEL, (404,)),
    _Route("PATCH", "/api/models/{model_id}", update_model, "models", _MODEL, (*_BODY, 404, 409, 503)),
    _Route("DELETE", "/api/models/{model_id}", delete_model, "models", wire.Answer[wire.Removed], (404, 409, 503)),
    _Route(
        "GET", "/api/models/{model_id}/memory", get_model_memory, "models", wire.Answer[wire.ModelMemory], (400, 404)
    ),
    _Route("POST", "/api/models/{model_id}/load", load_model, "models", _MODEL, (*_BODY, 404, 429, 503, 504)),
    _Route("POST", "/api/models/{model_id}/unload", unload_model, "models", _MODEL, (404, 409)),
    _Route(
        "POST",
        "/api/models/{model_id}/start",
        load_model,
        "models",
        _MODEL,
        (*_BODY, 404, 429, 503, 504),
        "start_model",
    ),
    _Route("POST", "/api/models/{model_id}/stop", unload_model, "models", _MODEL, (404, 409), "stop_model"),
    _Route("GET", "/api/health", get_health, "health", wire.Answer[wire.HealthData], (503,)),
    _Route("GET", "/api/status", get_status, "health", wire.Answer[wire.StatusData]),
    _Route("GET", "/api/monitoring", get_metrics, "monitoring", wire.Answer[wire.MonitoringData]),
    _Route("GET", "/api/monitoring/history", get_history, "monitoring", wire.Answer[wire.HistoryData], (400, 503)),
    _Route("GET", "/api/llama-server", get_engine, "engine", _ENGINE),
    _Route("POST", "/api/llama-server/start", start_engine, "engine", _ENGINE, (503,)),
    _Route("POST", "/api/llama-server/stop", stop_engine, "engine", _ENGINE, (409,)),
    _Route("POST", "/api/llama-server/restart", restart_engine, "engine", _ENGINE, (503,)),
    _Route("POST", "/api/llama-server/rescan", scan_models, "engine", wire.Answer[wire.Scanned], (400, 503), "rescan"),
)


# --- failures ---------------------------------------------------------------------------------------------------------


def _failure(error: ServiceError) -> JSONResponse:
    headers = {"Retry-After": str(error.retry_after_s)} if isinstance(error, Overloaded) else None
    body = error_envelope(error.rest_code, error.message, error.openai_type, error.details)
    return JSONResponse(body, error.status, headers)


async def _on_service_error(_: Request, error: ServiceError) -> JSONResponse:
    return _failure(error)


async def _on_invalid_request(_: Request, error: RequestValidationError) -> JSONResponse:
    problems = [_problem(problem) for problem in error.errors()]
    field, text = problems[0]
    others = "; ".join(f"{name}: {reason}" for name, reason in problems[1:])
    return _failure(InvalidInput(field, text, details=others or None))


def _problem(problem: Mapping[str, Any]) -> tuple[str, str]:
    """(field as the caller spelled it, what is wrong with it)."""
    if problem["type"] == "json_invalid":
        return "body", f"is not valid JSON: {problem['ctx']['error']}"
    _, *path = problem["loc"]  # the first part says where it was: body, query, path
    field = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).removeprefix(".")
    text: str = problem["msg"]
    return field or "body", text[:1].lower() + text[1:]


async def _on_http_exception(request: Request, error: HTTPException) -> JSONResponse:
    path = request.url.path
    if error.status_code == 404:
        return _failure(NotFound("route", path, f"There is no {path}. See /api/docs."))
    if error.status_code == 405:
        allowed = ", ".join(_methods(request.app, path))
        message = f"{path} does not answer {request.method}, only {allowed}."
        body = error_envelope("METHOD_NOT_ALLOWED", message, "invalid_request_error")
        return JSONResponse(body, 405, {"Allow": allowed})
    return _failure(InvalidInput("body", str(error.detail)))


def _methods(app: FastAPI, path: str) -> list[str]:
    routes = (route for route in app.routes if isinstance(route, APIRoute) and route.path_regex.match(path))
    return sorted({method for route in routes for method in route.methods or ()})


class _Edge:
    """Around the framework: bodies that are too large or no JSON, HEAD, and what nobody expected."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        answer = _Answer(send)
        try:
            body = await _read_body(scope, receive)
        except ServiceError as refusal:
            return await answer.fail(refusal.status, error_body(refusal))
        if body is None:
            return None
        method = "GET" if scope["method"] == "HEAD" else scope["method"]  # the server leaves the body out
        try:
            await self._app({**scope, "method": method}, _replayed(body, receive), answer.send)
        except Exception:  # the door's boundary: whatever it was, the caller gets an answer and the log the trace
            trace_id = uuid.uuid4().hex[:12]
            logger.exception("%s %s failed unexpectedly, trace %s", scope["method"], scope["path"], trace_id)
            message = f"Something failed that should not have. The service's log says more under trace {trace_id}."
            await answer.fail_unexpectedly(ServiceError(message, details=f"trace {trace_id}"))
        return None


class _UnsupportedBody(InvalidInput):
    status = 415


async def _read_body(scope: Scope, receive: Receive) -> bytes | None:
    """The whole body; None when the client left. Raises TooLarge, and _UnsupportedBody for what is not JSON."""
    headers: dict[bytes, bytes] = dict(scope["headers"])
    body: bytes = b""
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        body += message.get("body", b"")
        if len(body) > _BODY_LIMIT:
            raise TooLarge("body", "must not be larger than 1 MiB")
        if not message.get("more_body", False):
            break
    media_type = headers.get(b"content-type", b"").split(b";")[0].strip().lower()
    if body and media_type != b"application/json":
        shown = media_type.decode("latin-1") or "missing"
        raise _UnsupportedBody("Content-Type", f"must be application/json, not {shown}")
    return body


def _replayed(body: bytes, receive: Receive) -> Receive:
    messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replay() -> Message:
        return messages.pop() if messages else await receive()

    return replay


class _Answer:
    """Sends an answer, and knows whether it is too late to send another."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._started = False

    async def send(self, message: Message) -> None:
        self._started = True
        await self._send(message)

    async def fail(self, status: int, body: bytes) -> None:
        headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
        await self._send({"type": "http.response.start", "status": status, "headers": headers})
        await self._send({"type": "http.response.body", "body": body})

    async def fail_unexpectedly(self, error: ServiceError) -> None:
        if not self._started:
            await self.fail(error.status, error_body(error))
