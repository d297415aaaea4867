"""What a call can fail with.

ApiError
├── ConnectionFailed     nobody answered, or the answer broke off
├── InvalidRequest       400, 405, 413, 415
├── Forbidden            401, 403
├── NotFound             404
├── Conflict             409
├── RateLimited          429; says when to try again
├── Unavailable          502, 503, 504, 507: the service or its engine cannot do it now
└── ServerFailed         500
"""

from __future__ import annotations

from collections.abc import Mapping


class ApiError(Exception):
    """`status` is that of HTTP, 0 where there was no answer; `code` the service's own name of the failure."""

    def __init__(self, message: str, *, status: int = 0, code: str = "", details: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.status = status
        self.code = code
        self.details = details


class ConnectionFailed(ApiError):
    pass


class InvalidRequest(ApiError):
    pass


class Forbidden(ApiError):
    pass


class NotFound(ApiError):
    pass


class Conflict(ApiError):
    pass


class RateLimited(ApiError):
    retry_after_s: float = 1.0


class Unavailable(ApiError):
    pass


class ServerFailed(ApiError):
    pass


def from_answer(status: int, headers: Mapping[str, str], body: object) -> ApiError:
    """The error of an answer that is not a success, in either of the service's two forms."""
    failure = body.get("error") if isinstance(body, dict) else None
    source = failure if isinstance(failure, dict) else body if isinstance(body, dict) else {}
    message = failure if isinstance(failure, str) else str(source.get("message") or f"HTTP status {status}")
    details = source.get("details")
    error = _class_of(status)(
        message, status=status, code=str(source.get("code", "")), details=details if isinstance(details, str) else None
    )
    if isinstance(error, RateLimited) and (seconds := headers.get("retry-after", "")).isdigit():
        error.retry_after_s = float(seconds)
    return error


def _class_of(status: int) -> type[ApiError]:
    match status:
        case 401 | 403:
            return Forbidden
        case 404:
            return NotFound
        case 409:
            return Conflict
        case 429:
            return RateLimited
        case 502 | 503 | 504 | 507:
            return Unavailable
        case _ if status < 500:
            return InvalidRequest
        case _:
            return ServerFailed
