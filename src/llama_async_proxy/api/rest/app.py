"""The REST API under /api: each route reads its input, runs one operation and renders the output.

Every failure, FastAPI's own included, is rendered by the policy of its path. The OpenAPI document says the same.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.types import Scope

from llama_async_proxy import __version__
from llama_async_proxy.api.boundary import AsgiBoundary
from llama_async_proxy.api.rest import (
    answers,
    archive,
    config,
    conversations,
    engine,
    logger,
    model_memory,
    models,
    models_directory,
    monitoring,
    options,
    preset_sections,
    presets,
    requests,
    search,
    status,
    usage,
)
from llama_async_proxy.api.rest.body_limit import BodyLimitMiddleware
from llama_async_proxy.api.rest.docs_page import POLICY, docs_page
from llama_async_proxy.api.rest.openapi import RestApplication
from llama_async_proxy.api.rest.routing import PolicyRoute, RoutePolicy, RouteTable, failure
from llama_async_proxy.errors import InvalidInput, MethodNotAllowed, NotFound, ServiceError
from llama_async_proxy.operations.context import Context

_TABLES: tuple[RouteTable, ...] = (
    *config.TABLES,
    *logger.TABLES,
    *models.TABLES,
    *model_memory.TABLES,
    *models_directory.TABLES,
    *status.TABLES,
    *monitoring.TABLES,
    *engine.TABLES,
    *archive.TABLES,  # before conversations, whose ids would match "export"
    *conversations.TABLES,
    *answers.TABLES,
    *search.TABLES,
    *usage.TABLES,
    *requests.TABLES,
    *presets.TABLES,
    *preset_sections.TABLES,
    *options.TABLES,
)


def create_rest(context: Callable[[], Context]) -> FastAPI:
    """The application for /api. `context` is called for every request, so that it may be built later."""
    app = RestApplication(
        title="Llama Async Proxy",
        version=__version__,
        summary="Finds GGUF models, runs llama.cpp for them, and tells how they and the machine are doing.",
        openapi_url="/api/openapi.json",
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        swagger_ui_oauth2_redirect_url=None,
    )
    app.state.context = context
    routers = [table.router() for table in _TABLES]
    for router in routers:
        app.include_router(router)
    app.state.routes = [route for router in routers for route in router.routes if isinstance(route, APIRoute)]
    app.add_api_route("/api/docs", partial(_docs, app), include_in_schema=False, response_class=HTMLResponse)
    app.exception_handler(ServiceError)(_on_service_error)
    app.exception_handler(RequestValidationError)(_on_invalid_request)
    app.exception_handler(HTTPException)(_on_http_exception)
    app.add_middleware(BodyLimitMiddleware, policy=partial(_policy, app))
    app.add_middleware(AsgiBoundary, error_answer=partial(_error_answer, app))
    return app


async def _docs(app: FastAPI) -> HTMLResponse:
    return HTMLResponse(docs_page(app.openapi()), headers={"Content-Security-Policy": POLICY})


# --- failures ---------------------------------------------------------------------------------------------------------


def _error_answer(app: FastAPI, scope: Scope, error: ServiceError) -> Response:
    return _policy(app, scope["path"]).failure(error)


async def _on_service_error(request: Request, error: ServiceError) -> Response:
    return _policy(request.app, request.url.path).failure(error)


async def _on_invalid_request(request: Request, error: RequestValidationError) -> Response:
    problems = [_problem(problem) for problem in error.errors()]
    field, text = problems[0]
    others = "; ".join(f"{name}: {reason}" for name, reason in problems[1:])
    return await _on_service_error(request, InvalidInput(field, text, details=others or None))


def _problem(problem: Mapping[str, Any]) -> tuple[str, str]:
    """(field as the caller spelled it, reason why its value is refused)."""
    if problem["type"] == "json_invalid":
        return "body", f"is not valid JSON: {problem['ctx']['error']}"
    _, *path = problem["loc"]  # the first part is body, query or path
    field = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).removeprefix(".")
    text: str = problem["msg"]
    return field or "body", text[:1].lower() + text[1:]


async def _on_http_exception(request: Request, error: HTTPException) -> Response:
    path = request.url.path
    if error.status_code == 404:
        return failure(NotFound("route", path, f"There is no {path}. See /api/docs."))
    if error.status_code == 405:
        refusal = MethodNotAllowed(request.method, path, _methods(request.app, path))
        response = _policy(request.app, path).failure(refusal)
        response.headers["Allow"] = refusal.allow
        return response
    return await _on_service_error(request, InvalidInput("body", str(error.detail)))


def _methods(app: FastAPI, path: str) -> tuple[str, ...]:
    routes: list[APIRoute] = app.state.routes
    methods = {method for route in routes if route.path_regex.match(path) for method in route.methods or ()}
    return tuple(methods) or ("GET",)  # the document and its page


def _policy(app: FastAPI, path: str) -> RoutePolicy:
    routes: list[APIRoute] = app.state.routes
    found = (route for route in routes if isinstance(route, PolicyRoute) and route.path_regex.match(path))
    return next(found, PolicyRoute).policy
