"""The API of llama-server's router, answered by us, so that its clients (its own web UI, scripts) work unmodified.

`GET /models` lists, `POST /models/load` and `/models/unload` begin what takes time and answer at once, and
`GET /models/sse` tells how it goes. `GET /props` without a model says that this is a router. Browsers that navigate get
the UI's pages.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress

import msgspec
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from llama_async_proxy.api.boundary import AsgiBoundary, report
from llama_async_proxy.api.inference.llama_router_schema import event_of, router_entry, sse
from llama_async_proxy.api.ui.static import is_navigation
from llama_async_proxy.errors import InvalidInput, ServiceError
from llama_async_proxy.events import ModelCreated, ModelDeleted, ModelRuntimeChanged, ModelUpdated, ScanFinished
from llama_async_proxy.inference.requests.routes import may_be_a_foreign_page, model_in_query
from llama_async_proxy.operations.context import Context
from llama_async_proxy.operations.models import (
    LoadModel,
    ScanModels,
    UnloadModel,
    find,
    load_model,
    scan_models,
    unload_model,
)
from llama_async_proxy.records.models import Model

logger = logging.getLogger(__name__)

_LIST, _LOAD, _UNLOAD, _EVENTS, _PROPS = "/models", "/models/load", "/models/unload", "/models/sse", "/props"
_METHODS = {_LIST: ("GET", "HEAD"), _LOAD: ("POST",), _UNLOAD: ("POST",), _EVENTS: ("GET",), _PROPS: ("GET", "HEAD")}
_VARY = {"Vary": "Accept, Sec-Fetch-Mode", "Cache-Control": "no-store"}
_KEEP_ALIVE_S = 15.0
_BEGUN_S = 1.0
"""Longest to wait until a load or unload shows in the list, before it is said to have begun."""
_MAX_BODY = 64 * 1024


class _Body(msgspec.Struct):
    model: str


class LlamaRouterApp:
    """An ASGI application for the requests it `handles`. `run` carries out loads and unloads; `close` ends streams."""

    def __init__(self, context: Callable[[], Context]) -> None:
        self._context = context
        self._jobs: asyncio.Queue[Awaitable[object]] = asyncio.Queue()
        self._closing = asyncio.Event()
        self._guarded = AsgiBoundary(self._serve, lambda _, error: _failure(error))

    @staticmethod
    def handles(scope: Scope) -> bool:
        path = scope["path"]
        if scope["type"] != "http" or path not in _METHODS:
            return False
        if path == _PROPS:  # with a model it is the engine's
            return scope["method"] in _METHODS[path] and model_in_query(scope["query_string"]) is None
        return scope["method"] not in ("GET", "HEAD") or not is_navigation(Headers(scope=scope))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._guarded(scope, receive, send)

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            response = await self._respond(Request(scope, receive))
        except ServiceError as error:
            response = _failure(error)
        if scope["method"] == "HEAD":
            response.body = b""  # the length of what GET would send stays in the headers
        await response(scope, receive, send)

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            while True:
                tasks.create_task(_logged(await self._jobs.get()))

    def close(self) -> None:
        """End every event stream, so that the server need not wait for their readers."""
        self._closing.set()

    async def _respond(self, request: Request) -> Response:
        path, method = request.url.path.removeprefix(request.scope.get("root_path", "")), request.method
        if method not in _METHODS[path]:
            allowed = ", ".join(_METHODS[path])
            message = f"{path} answers {allowed} only; models are registered and removed at /api/models"
            return JSONResponse(_error(405, message, "invalid_request_error"), 405, headers={"Allow": allowed, **_VARY})
        if path == _LIST:
            return await self._list(request)
        if path == _PROPS:
            return JSONResponse(self._props(), headers=_VARY)
        if path == _EVENTS:
            return StreamingResponse(self._events(), media_type="text/event-stream", headers=_VARY)
        model = find(self._context(), await _model_name(request))
        await (self._load(model) if path == _LOAD else self._unload(model))
        return JSONResponse({"success": True})

    async def _list(self, request: Request) -> Response:
        context = self._context()
        asks_for_scan = request.query_params.get("reload") not in (None, "0", "false")
        if asks_for_scan and not may_be_a_foreign_page(request.headers.raw):
            await scan_models(context, ScanModels())
        entries = [router_entry(context, model) for model in context.store.models.all()]
        return JSONResponse({"object": "list", "data": entries}, headers=_VARY)

    def _props(self) -> dict[str, object]:
        context = self._context()
        settings = context.configuration.settings
        return {
            "role": "router",
            "max_instances": settings.max_models,
            "models_autoload": settings.load_on_request,
            "model_alias": "llama-async-proxy",
            "model_path": "none",
            "default_generation_settings": {"params": None, "n_ctx": 0},
            "ui_settings": {},
            "build_info": context.engine.state.version or "unknown",
            "cors_proxy_enabled": False,
        }

    async def _load(self, model: Model) -> None:
        context = self._context()
        if context.scheduler.runtime(model.id).status.in_use:
            raise InvalidInput("", "model is already running")
        await self._begin(model, load_model(context, LoadModel(model.id)))

    async def _unload(self, model: Model) -> None:
        context = self._context()
        if not context.scheduler.runtime(model.id).status.in_use:
            raise InvalidInput("", "model is not running")
        await self._begin(model, unload_model(context, UnloadModel(model.id)))

    async def _begin(self, model: Model, job: Awaitable[object]) -> None:
        """Who asks for the list next must see that it has begun."""
        with self._context().bus.subscribe(ModelRuntimeChanged) as changes, suppress(TimeoutError):
            self._jobs.put_nowait(job)
            async with asyncio.timeout(_BEGUN_S):
                async for change in changes:
                    if isinstance(change, ModelRuntimeChanged) and change.runtime.model_id == model.id:
                        return

    async def _events(self) -> AsyncIterator[bytes]:
        context = self._context()
        kinds = (ModelRuntimeChanged, ModelCreated, ModelUpdated, ModelDeleted, ScanFinished)
        with context.bus.subscribe(*kinds) as changes:
            yield b":\n\n"  # the head leaves with it
            upcoming = aiter(changes)
            following = asyncio.ensure_future(anext(upcoming))
            closing = asyncio.ensure_future(self._closing.wait())
            try:
                while not closing.done():
                    await asyncio.wait({following, closing}, timeout=_KEEP_ALIVE_S, return_when=asyncio.FIRST_COMPLETED)
                    if following.done():
                        event = event_of(context, following.result())
                        following = asyncio.ensure_future(anext(upcoming))
                        if event is not None:
                            yield sse(event)
                    elif not closing.done():
                        yield b":\n\n"
            finally:
                following.cancel()
                closing.cancel()
                await asyncio.wait({following, closing})


async def _model_name(request: Request) -> str:
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > _MAX_BODY:
            raise InvalidInput("body", f"is larger than {_MAX_BODY} bytes")
    try:
        return msgspec.json.decode(bytes(body), type=_Body).model
    except (msgspec.DecodeError, UnicodeDecodeError) as exc:
        raise InvalidInput("body", f'must be {{"model": "NAME"}}: {exc}') from exc


async def _logged(job: Awaitable[object]) -> None:
    """Its end is told by events; what failed, and why, is part of the model's state."""
    try:
        await job
    except ServiceError as exc:
        logger.info("A load or unload asked for at /models failed: %s", exc)
    except Exception:  # the boundary for faults of the service; no caller waits for the answer
        report("A load or unload asked for at /models")


def _failure(error: ServiceError) -> Response:
    return JSONResponse(_error(error.status, error.message, error.openai_type), error.status, headers=_VARY)


def _error(status: int, message: str, kind: str) -> dict[str, object]:
    return {"error": {"code": status, "message": message, "type": kind}}
