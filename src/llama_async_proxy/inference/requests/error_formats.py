"""Error bodies and error events in the format of each inference API. Pure.

OPENAI is also llama-server's own format: {"error": {"code": 404, "message": ..., "type": ...}}. An unknown model has
OpenAI's string code "model_not_found", which OpenAI's clients look for.
"""

from __future__ import annotations

from enum import Enum, auto

import msgspec

from llama_async_proxy.errors import NotFound, ServiceError, UpstreamFailed


class ApiFormat(Enum):
    """The API that a route belongs to, and so the format of its errors."""

    OPENAI = auto()
    RESPONSES = auto()
    """OpenAI's Responses API: bodies as OPENAI, events with a type."""
    ANTHROPIC = auto()


_ANTHROPIC_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    405: "invalid_request_error",
    408: "invalid_request_error",
    413: "request_too_large",
    415: "invalid_request_error",
    426: "invalid_request_error",
    429: "rate_limit_error",
    504: "timeout_error",
}
"""Error types by status (https://docs.anthropic.com/en/api/errors); every other status is an api_error."""


def format_of(path: str) -> ApiFormat:
    """The format of errors at a path that need not be a route."""
    return ApiFormat.ANTHROPIC if path.startswith("/v1/messages") else ApiFormat.OPENAI


def error_body(api_format: ApiFormat, error: ServiceError) -> bytes:
    """The JSON body of an error response."""
    return msgspec.json.encode(_error(api_format, error))


def error_event(api_format: ApiFormat, error: ServiceError) -> bytes:
    """The error as a server-sent event, for a stream whose status has already been sent."""
    content = _error(api_format, error)
    if api_format is ApiFormat.RESPONSES:
        # OpenAI's clients raise on "error"; readers of typed events look at "type".
        content = {"type": "error", "code": str(error.status), "message": _message(error), "param": None, **content}
    name = b"" if api_format is ApiFormat.OPENAI else b"event: error\n"
    return b"%bdata: %b\n\n" % (name, msgspec.json.encode(content))


def relayed_error_event(api_format: ApiFormat, body: bytes) -> tuple[bytes, str]:
    """An engine's error response as a server-sent event, and its message.

    OpenAI's clients get the engine's own object. A body that is none becomes an error of the service.
    """
    try:
        answer = _ENGINE_ERROR.decode(body)
    except msgspec.DecodeError:
        failure = UpstreamFailed(f"The model's process answered: {body[:200].decode('utf-8', 'replace')}")
        return error_event(api_format, failure), failure.message
    message = answer.error.message
    if api_format is ApiFormat.ANTHROPIC:
        return error_event(api_format, UpstreamFailed(message)), message
    return b"data: %b\n\n" % b" ".join(body.splitlines()), message


class _EngineError(msgspec.Struct):
    message: str


class _EngineAnswer(msgspec.Struct):
    error: _EngineError


_ENGINE_ERROR = msgspec.json.Decoder(_EngineAnswer)


def _error(api_format: ApiFormat, error: ServiceError) -> dict[str, object]:
    if api_format is ApiFormat.ANTHROPIC:
        kind = _ANTHROPIC_TYPES.get(error.status, "api_error")
        return {"type": "error", "error": {"type": kind, "message": _message(error)}}
    unknown_model = isinstance(error, NotFound) and error.resource == "model"
    inner: dict[str, object] = {
        "code": "model_not_found" if unknown_model else error.status,
        "message": _message(error),
        "type": error.openai_type,
    }
    if unknown_model:
        inner["param"] = "model"
    return {"error": inner}


def _message(error: ServiceError) -> str:
    """The message with its details: clients of these APIs show only the message."""
    if isinstance(error, NotFound) and error.details:
        return f"{error.message} {error.details}"
    return error.message
