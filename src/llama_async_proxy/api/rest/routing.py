"""Routes of /api as tables: each subject declares its own, and `app` makes FastAPI's routes of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
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
"""Error statuses of every route that reads a body."""


async def _context(request: Request) -> Context:
    context: Context = request.app.state.context()
    return context


ServiceContext = Annotated[Context, Depends(_context)]
"""An endpoint's parameter of this type gets the context that operations take."""


def failure(error: ServiceError) -> JSONResponse:
    """The error answer of most routes."""
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
    """Rules for all requests to a path, those included that FastAPI or the middleware refuses."""

    failure: Callable[[ServiceError], Response] = failure
    """Renders an error."""
    error_answer: type[BaseModel] = ErrorAnswer
    """Schema of the errors that `failure` renders."""
    body_limit: int = 1 << 20
    """Longest body, in bytes."""


class PolicyRoute(APIRoute):
    policy: ClassVar[RoutePolicy] = RoutePolicy()


Responses = Mapping[int | str, Mapping[str, Any]]
"""Parts of the OpenAPI document by status."""


class RestRoute(Struct, frozen=True):
    method: str
    path: str
    endpoint: Callable[..., Any]
    answer: type[BaseModel] | None
    """Schema of a successful answer; None for one that is not JSON, which `responses` describes."""
    errors: tuple[int, ...] = ()
    """Error statuses of the route; every route may answer 500, too."""
    operation_id: str = ""
    """Name in the OpenAPI document; by default the endpoint's name."""
    status: int = 200
    """Status of a successful answer."""
    responses: Responses = field(default_factory=dict)
    """Answers that `answer` and `errors` do not describe; they outrank those."""


class RouteTable(Struct, frozen=True):
    """Routes of one subject, in the order in which they are matched."""

    tag: str
    """Section of the OpenAPI document."""
    routes: tuple[RestRoute, ...]
    route_class: type[PolicyRoute] = PolicyRoute
    shows_null: bool = False
    """True for answers in which unknown fields are null, False where they are absent."""

    def router(self) -> APIRouter:
        router = APIRouter(tags=[self.tag], route_class=self.route_class)
        error_answer = self.route_class.policy.error_answer
        for route in self.routes:
            errors: dict[int | str, dict[str, Any]] = {s: {"model": error_answer} for s in (*route.errors, 500)}
            router.add_api_route(
                route.path,
                route.endpoint,
                methods=[route.method],
                status_code=route.status,
                response_model=route.answer,
                response_model_exclude_none=not self.shows_null,
                response_class=Response if route.answer is None else JSONResponse,
                responses={**errors, **{status: dict(part) for status, part in route.responses.items()}},
                operation_id=route.operation_id or route.endpoint.__name__,
            )
        return router
