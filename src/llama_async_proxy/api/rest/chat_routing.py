"""Common parts of the chat routes: their base schema, their error answer and their route class.

The error answer has the form that chat clients read. Times are ISO 8601 in UTC. No field is left out: an unknown value
is null.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Annotated, Any, Literal

from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field

from llama_async_proxy.api.rest.routing import PolicyRoute, RoutePolicy, retry_after
from llama_async_proxy.errors import (
    DeadlineExceeded,
    InvalidInput,
    LoadFailed,
    NotEnoughMemory,
    NotFound,
    ServiceError,
    StoreUnavailable,
    Unavailable,
    UpstreamFailed,
)

LLAMACPP_ERROR = "LLAMACPP_ERROR"
Text = Annotated[str, Field(max_length=2_000_000)]
Name = Annotated[str, Field(max_length=4096)]
RoleName = Literal["system", "user", "assistant"]
StatusName = Literal["complete", "generating", "stopped", "interrupted"]
_BODY_LIMIT = 32 << 20
"""Limit in bytes; bodies carry images."""
Id = int
"""Integers larger than the database can hold are valid ids: no conversation has them, which is status 404."""


class ChatModel(BaseModel):
    """Types are checked, never converted."""

    model_config = ConfigDict(strict=True, protected_namespaces=())


class ChatErrorAnswer(ChatModel):
    """Every answer that is not a success."""

    success: Literal[False] = False
    error: str = Field(description="One sentence for people: what failed, why, what to do.")
    code: str
    field: str | None = Field(default=None, description="The field at fault; absent where none is.")
    resource: str | None = Field(default=None, description="What kind of thing was not found; absent otherwise.")
    id: int | str | None = Field(default=None, description="Which one was not found; absent otherwise.")
    details: str | None = Field(default=None, description="Absent where there is no more to say.")


def error_answer(error: ServiceError) -> ChatErrorAnswer:
    answer = ChatErrorAnswer(
        error=error.message,
        code=LLAMACPP_ERROR if is_engine_failure(error) else error.rest_code,
        details=error.details,
    )
    if isinstance(error, InvalidInput) and error.field:
        answer.field = error.field
    if isinstance(error, NotFound):
        answer.resource = error.resource
        answer.id = error.identifier if isinstance(error.identifier, int) else str(error.identifier)
    return answer


def error_status(error: ServiceError) -> int:
    return 500 if is_engine_failure(error) else error.status


def is_engine_failure(error: ServiceError) -> bool:
    if isinstance(error, StoreUnavailable):
        return False
    return isinstance(error, UpstreamFailed | LoadFailed | NotEnoughMemory | Unavailable | DeadlineExceeded)


def failure(error: ServiceError) -> JSONResponse:
    answer = error_answer(error)
    return JSONResponse(answer.model_dump(exclude_none=True), error_status(error), retry_after(error))


class ChatRoute(PolicyRoute):
    """Renders every failure as ChatErrorAnswer."""

    policy = RoutePolicy(failure, ChatErrorAnswer, _BODY_LIMIT)

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def handled(request: Request) -> Response:
            try:
                return await handle(request)
            except RequestValidationError as error:
                raise _invalid(error) from None

        return handled


def _invalid(error: RequestValidationError) -> InvalidInput:
    problem = error.errors()[0]
    if problem["type"] == "json_invalid":
        return InvalidInput("body", f"is not valid JSON: {problem['ctx']['error']}")
    _, *path = problem["loc"]
    field = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).removeprefix(".")
    if problem["type"] == "missing":
        return _Missing(field or "body")
    text: str = problem["msg"]
    return InvalidInput(field or "body", text[:1].lower() + text[1:])


class _Missing(InvalidInput):
    def __init__(self, field: str) -> None:
        super().__init__(field, "")
        self.message = f"Missing required field: {field}"


def whole_ms(value: float | None) -> int | None:
    return None if value is None else round(value)


def rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 1)
