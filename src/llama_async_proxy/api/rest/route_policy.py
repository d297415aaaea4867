"""What the resources of /api build their routes of."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Any, ClassVar

from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute
from msgspec import Struct, field
from pydantic import BaseModel

from llama_async_proxy.api.rest.schema import ErrorAnswer, ErrorContent
from llama_async_proxy.api.units import iso_now
from llama_async_proxy.errors import Overloaded, ServiceError
from llama_async_proxy.operations.context import Context

BODY = (400, 413, 415)
"""Statuses of every route that reads a body."""


async def _context(request: Request) -> Context:
    context: Context = request.app.state.context()
    return context


Live = Annotated[Context, Depends(_context)]


def failure(error: ServiceError) -> JSONResponse:
    """The error answer of most resources."""
    content = ErrorContent(
        code=error.rest_code, message=error.message, type=error.openai_type, details=error.details or None
    )
    return error_response(content, error.status, retry_after(error))


def error_response(content: ErrorContent, status: int, headers: Mapping[str, str] | None = None) -> JSONResponse:
    answer = ErrorAnswer(error=content, timestamp=iso_now())
    return JSONResponse(answer.model_dump(exclude_none=True), status, headers)


def retry_after(error: ServiceError) -> dict[str, str] | None:
    return {"Retry-After": str(error.retry_after_s)} if isinstance(error, Overloaded) else None


class RoutePolicy(Struct, frozen=True):
    """What holds for all requests to a resource, those that never reach its routes included."""

    failure: Callable[[ServiceError], Response] = failure
    body_limit: int = 1 << 20
    """Bytes."""


class ResourceRoute(APIRoute):
    policy: ClassVar[RoutePolicy] = RoutePolicy()


class Route(Struct, frozen=True):
    method: str
    path: str
    endpoint: Callable[..., Any]
    answer: type[BaseModel]
    errors: tuple[int, ...] = ()
    """Statuses it may fail with, besides 500."""
    operation_id: str = ""
    """In the OpenAPI document; by default the endpoint's name."""
    shows_null: bool = False
    """Whether fields that are not known are null rather than absent."""
    failures: Mapping[int, type[BaseModel]] = field(default_factory=dict)
    """The answers to failures that say more than ErrorAnswer."""


def routes_of(tag: str, routes: Iterable[Route]) -> APIRouter:
    router = APIRouter(tags=[tag], route_class=ResourceRoute)
    for route in routes:
        answers: dict[int, type[BaseModel]] = dict.fromkeys((*route.errors, 500), ErrorAnswer)
        answers.update(route.failures)
        router.add_api_route(
            route.path,
            route.endpoint,
            methods=[route.method],
            response_model=route.answer,
            response_model_exclude_none=not route.shows_null,
            responses={status: {"model": answer} for status, answer in answers.items()},
            operation_id=route.operation_id or route.endpoint.__name__,
        )
    return router
