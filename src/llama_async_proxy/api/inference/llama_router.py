"""The API of llama-server's router, so that its clients (its own web UI, scripts) work with this service unmodified.

`GET /models` lists the models. `POST /models/load` and `/models/unload` begin a load or an unload and answer at once;
`GET /models/sse` streams its progress. `GET /props` without a model says that this is a router. A browser that
navigates to one of these addresses gets the page of the web UI.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from typing import TypedDict

import msgspec
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from llama_async_proxy.api.body import read_body
from llama_async_proxy.api.boundary import AsgiBoundary, report
from llama_async_proxy.errors import InvalidInput, NotFound, ServiceError
from llama_async_proxy.events import (
    Event,
    ModelCreated,
    ModelDeleted,
    ModelRuntimeChanged,
    ModelUpdated,
    ScanFinished,
)
from llama_async_proxy.inference.requests import model_list, routes
from llama_async_proxy.operations.context import Context
from llama_async_proxy.operations.engine import GetCommandLine, GetEngine, get_command_line, get_engine
from llama_async_proxy.operations.models import (
    GetModel,
    ListModels,
    LoadModel,
    ModelView,
    ScanModels,
    UnloadModel,
    get_model,
    list_models,
    load_model,
    scan_models,
    unload_model,
)
from llama_async_proxy.records.models import ModelKind
from llama_async_proxy.records.runtime import ModelRuntime, ModelStatus

logger = logging.getLogger(__name__)

_LIST, _LOAD, _UNLOAD, _EVENTS, _PROPS = "/models", "/models/load", "/models/unload", "/models/sse", "/props"
_METHODS = {_LIST: ("GET", "HEAD"), _LOAD: ("POST",), _UNLOAD: ("POST",), _EVENTS: ("GET",), _PROPS: ("GET", "HEAD")}
_HEADERS = {"Vary": "Accept, Sec-Fetch-Mode", "Cache-Control": "no-store"}
_KEEP_ALIVE_S = 15.0
_BEGUN_S = 1.0
"""Longest wait, in seconds, until a load or unload shows in the list, before it is answered as begun."""
_MAX_BODY_BYTES = 64 * 1024
_COMMENT = b":\n\n"
_EVERY_MODEL = "*"
"""Name of the model in events that concern the list as a whole (seen with llama.cpp b11434)."""
_FAILURE_CODE = 1
"""Exit code that the router shows for a process that a signal ended or that never started."""
_COMING_UP = (ModelStatus.QUEUED, ModelStatus.LOADING)
_UP = (ModelStatus.READY, ModelStatus.SLEEPING, ModelStatus.STOPPING)


class _ModelBody(msgspec.Struct):
    model: str


class LlamaRouterApp:
    """An ASGI application for the requests that `handles` accepts.

    Keep `run` running: it carries out loads and unloads. `close` ends the event streams.
    """

    def __init__(self, context: Callable[[], Context], is_navigation: Callable[[Headers], bool]) -> None:
        """`is_navigation` tells by a request's headers whether a browser wants a page to show."""
        self._context = context
        self._is_navigation = is_navigation
        self._jobs: asyncio.Queue[Awaitable[object]] = asyncio.Queue()
        self._closing = asyncio.Event()
        self._guarded = AsgiBoundary(self._serve, lambda _, error: _error_answer(error))

    def handles(self, scope: Scope) -> bool:
        path = scope["path"]
        if scope["type"] != "http" or path not in _METHODS:
            return False
        if path == _PROPS:  # with a model in the query the request is the engine's
            return scope["method"] in _METHODS[path] and routes.model_in_query(scope["query_string"]) is None
        return scope["method"] not in ("GET", "HEAD") or not self._is_navigation(Headers(scope=scope))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._guarded(scope, receive, send)

    async def run(self) -> None:
        """Carry out the loads and unloads that were asked for, until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            while True:
                tasks.create_task(_logged(await self._jobs.get()))

    def close(self) -> None:
        """End every event stream, so that the server need not wait for its readers."""
        self._closing.set()

    # --- requests -------------------------------------------------------------------------------------

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            response = await self._respond(Request(scope, receive))
        except ServiceError as error:
            response = _error_answer(error)
        if scope["method"] == "HEAD":
            response.body = b""  # the length that GET would have stays in the headers
        await response(scope, receive, send)

    async def _respond(self, request: Request) -> Response:
        path, method = request.url.path.removeprefix(request.scope.get("root_path", "")), request.method
        if method not in _METHODS[path]:
            return _wrong_method(path)
        if path == _LIST:
            return await self._list(request)
        if path == _PROPS:
            return JSONResponse(await self._props(), headers=_HEADERS)
        if path == _EVENTS:
            return StreamingResponse(self._events(), media_type="text/event-stream", headers=_HEADERS)
        model = await get_model(self._context(), GetModel(await _model_name(request)))
        await (self._load(model) if path == _LOAD else self._unload(model))
        return JSONResponse({"success": True})

    async def _list(self, request: Request) -> Response:
        context = self._context()
        asks_for_scan = request.query_params.get("reload") not in (None, "0", "false")
        if asks_for_scan and not routes.may_be_a_foreign_page(request.headers.raw):
            await scan_models(context, ScanModels())
        listed = await list_models(context, ListModels())
        return JSONResponse(
            {"object": "list", "data": [await _list_entry(context, view) for view in listed.models]}, headers=_HEADERS
        )

    async def _props(self) -> dict[str, object]:
        context = self._context()
        engine = await get_engine(context, GetEngine())
        return {
            "role": "router",
            "max_instances": context.settings.max_models,
            "models_autoload": context.settings.load_on_request,
            "model_alias": "llama-async-proxy",
            "model_path": "none",
            "default_generation_settings": {"params": None, "n_ctx": 0},
            "ui_settings": {},
            "build_info": engine.state.version or "unknown",
            "cors_proxy_enabled": False,
        }

    async def _load(self, view: ModelView) -> None:
        if view.runtime.status.in_use:
            raise InvalidInput("", "model is already running")
        await self._begin(view, load_model(self._context(), LoadModel(view.model.id)))

    async def _unload(self, view: ModelView) -> None:
        if not view.runtime.status.in_use:
            raise InvalidInput("", "model is not running")
        await self._begin(view, unload_model(self._context(), UnloadModel(view.model.id)))

    async def _begin(self, view: ModelView, job: Awaitable[object]) -> None:
        """Have `job` run, and wait until it shows: a client that lists the models next must see that it has begun."""
        with self._context().bus.subscribe(ModelRuntimeChanged) as changes, suppress(TimeoutError):
            self._jobs.put_nowait(job)
            async with asyncio.timeout(_BEGUN_S):
                async for change in changes:
                    if isinstance(change, ModelRuntimeChanged) and change.runtime.model_id == view.model.id:
                        return

    async def _events(self) -> AsyncIterator[bytes]:
        context = self._context()
        kinds = (ModelRuntimeChanged, ModelCreated, ModelUpdated, ModelDeleted, ScanFinished)
        with context.bus.subscribe(*kinds) as changes:
            yield _COMMENT  # the headers leave with the first bytes of the body
            upcoming = aiter(changes)
            following = asyncio.ensure_future(anext(upcoming))
            closing = asyncio.ensure_future(self._closing.wait())
            try:
                while not closing.done():
                    await asyncio.wait({following, closing}, timeout=_KEEP_ALIVE_S, return_when=asyncio.FIRST_COMPLETED)
                    if following.done():
                        event = await _router_event(context, following.result())
                        following = asyncio.ensure_future(anext(upcoming))
                        if event is not None:
                            yield _sse(event)
                    elif not closing.done():
                        yield _COMMENT
            finally:
                following.cancel()
                closing.cancel()
                await asyncio.wait({following, closing})


async def _model_name(request: Request) -> str:
    body = await read_body(request.scope, request.receive, _MAX_BODY_BYTES)
    try:
        return msgspec.json.decode(body or b"", type=_ModelBody).model
    except (msgspec.DecodeError, UnicodeDecodeError) as exc:
        raise InvalidInput("body", f'must be {{"model": "NAME"}}: {exc}') from exc


async def _logged(job: Awaitable[object]) -> None:
    """Run a load or unload that no caller waits for: events tell its end, and the model's state has the failure."""
    try:
        await job
    except ServiceError as exc:
        logger.info("A load or unload asked for at /models failed: %s", exc)
    except Exception:  # the boundary for faults of the service
        report("A load or unload asked for at /models")


# --- answers --------------------------------------------------------------------------------------------


def _error_answer(error: ServiceError) -> Response:
    return JSONResponse(_error(error.status, error.message, error.openai_type), error.status, headers=_HEADERS)


def _wrong_method(path: str) -> Response:
    allowed = ", ".join(_METHODS[path])
    message = f"{path} answers {allowed} only; models are registered and removed at /api/models"
    return JSONResponse(_error(405, message, "invalid_request_error"), 405, headers={"Allow": allowed, **_HEADERS})


def _error(status: int, message: str, kind: str) -> dict[str, object]:
    return {"error": {"code": status, "message": message, "type": kind}}


async def _list_entry(context: Context, view: ModelView) -> dict[str, object]:
    """One model of the list: its entry in /v1/models, and the fields that only a router has."""
    model, runtime = view.model, view.runtime
    fields = {**model_list.entry(model, runtime), "id": view.served_name}
    status: dict[str, object] = {"value": "unloaded", **_mapping(fields["status"]), **await _launch(context, view)}
    if status.get("failed"):
        status["exit_code"] = _exit_code(runtime)
    meta = fields.pop("meta")
    if runtime.status in _UP:
        fields["meta"] = meta
    inputs = ["text", "image"] if model.mmproj_path else ["text"]
    outputs = ["text"] if model.facts.kind is ModelKind.CHAT else ["embedding"]
    return {
        **fields,
        "tags": [],
        "status": status,
        "architecture": {"input_modalities": inputs, "output_modalities": outputs},
        "source": "preset",
        "can_remove": False,
    }


async def _launch(context: Context, view: ModelView) -> dict[str, object]:
    """Command line and preset section of a model; no arguments for a model that its options keep from starting."""
    try:
        command = await get_command_line(context, GetCommandLine(view.model.id))
    except ServiceError:
        return {"args": []}
    preset = {} if command.preset is None else {"preset": command.preset}
    return {"args": list(command.arguments), **preset}


def _exit_code(runtime: ModelRuntime) -> int:
    return runtime.exit_code if runtime.exit_code is not None and runtime.exit_code > 0 else _FAILURE_CODE


def _mapping(value: object) -> dict[str, object]:
    return value if isinstance(value, dict) else {}


# --- events ---------------------------------------------------------------------------------------------


class _RouterEvent(TypedDict):
    model: str
    event: str
    data: dict[str, object]


def _sse(event: _RouterEvent) -> bytes:
    """The event as a frame. Frames of llama-server's router have no `event:` line."""
    return b"data: %b\n\n" % msgspec.json.encode(event)


async def _router_event(context: Context, event: Event) -> _RouterEvent | None:
    """The router's event for one of ours; None for a change that a router does not announce."""
    if isinstance(event, ModelRuntimeChanged):
        return await _change(context, event)
    if isinstance(event, ModelDeleted):
        return {"model": event.model.slug, "event": "model_remove", "data": {}}
    return {"model": _EVERY_MODEL, "event": "models_reload", "data": {}}


async def _change(context: Context, event: ModelRuntimeChanged) -> _RouterEvent | None:
    runtime, previous = event.runtime, event.previous
    try:
        view = await get_model(context, GetModel(runtime.model_id))
    except NotFound:
        return None
    if runtime.status in _COMING_UP and previous.status not in _COMING_UP:
        return {"model": view.served_name, "event": "model_status", "data": {"status": "loading"}}
    data = _details(view, runtime, previous)
    return None if data is None else {"model": view.served_name, "event": "status_change", "data": data}


def _details(view: ModelView, runtime: ModelRuntime, previous: ModelRuntime) -> dict[str, object] | None:
    is_new = runtime.status is not previous.status
    match runtime.status:
        case ModelStatus.LOADING if (progress := runtime.progress) is not None and progress != previous.progress:
            stages = {"stages": [progress.stage], "current": progress.stage, "value": progress.fraction}
            return {"status": "loading", "progress": stages}
        case ModelStatus.READY if is_new:
            return {"status": "loaded", "info": {**model_list.entry(view.model, runtime), "id": view.served_name}}
        case ModelStatus.SLEEPING if is_new:
            return {"status": "sleeping"}
        case ModelStatus.UNLOADED if is_new:
            return {"status": "unloaded", "exit_code": 0}
        case ModelStatus.FAILED if is_new:
            return {"status": "unloaded", "exit_code": _exit_code(runtime)}
    return None
