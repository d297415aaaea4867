"""Every error this service raises on purpose, and how each door names it.

    ServiceError
    ├── InvalidInput         the caller sent something wrong; names the field
    │   ├── TooLarge             more than a limit of ours allows
    │   ├── PresetInvalid        the engine would refuse the preset
    │   ├── RequestTimeout       the rest of the request did not come
    │   ├── MethodNotAllowed     the path answers other methods
    │   └── UpgradeRequired      the path speaks plain HTTP, no websocket
    ├── NotFound             no such model, preset, conversation ...
    │   └── PresetNotFound
    ├── Conflict             it exists already, or is in use
    ├── PermissionDenied     the operating system or a rule of ours forbids it
    ├── Overloaded           a queue is full
    ├── DeadlineExceeded     it took longer than the caller's or our limit
    ├── Unavailable          this part of the service cannot work now
    │   ├── EngineStopped        the engine was stopped; start it first
    │   ├── EngineMissing        no program that can run models was found
    │   └── StoreUnavailable     the database cannot be read or written
    ├── Cancelled            somebody broke the request off
    ├── LoadFailed           a model did not come up; carries exit and log tail
    ├── NotEnoughMemory      a model needs more than the machine has
    └── UpstreamFailed       the model's process broke off or could not be reached

Doors never invent codes: they read the class attributes below. A code of None means "the operation's
own failure code", which only the door knows (`LOAD_MODEL_FAILED` for `models:load`, and so on).
"""

from __future__ import annotations

from typing import ClassVar


class ServiceError(Exception):
    """Base of the tree. `message` is one sentence for a person: what failed, why, what to do."""

    status: ClassVar[int] = 500
    """HTTP status on every HTTP door."""
    rest_code: ClassVar[str] = "INTERNAL_ERROR"
    """`error.code` on /api."""
    socket_code: ClassVar[str | None] = None
    """`error.code` on Socket.IO v1."""
    openai_type: ClassVar[str] = "server_error"
    """`error.type` on /v1 and the native routes."""

    def __init__(self, message: str, *, details: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.details = details


class InvalidInput(ServiceError):
    """`field` is the dotted name of the offending input as the caller spelled it."""

    status = 400
    rest_code = "VALIDATION_ERROR"
    socket_code = "INVALID_REQUEST"
    openai_type = "invalid_request_error"

    def __init__(self, field: str, problem: str, *, details: str | None = None) -> None:
        super().__init__(f"{field}: {problem}" if field else problem, details=details)
        self.field = field


class TooLarge(InvalidInput):
    status = 413


class PresetInvalid(InvalidInput):
    """`problems` are sentences with line and column where there are any; the message is the first of them."""

    socket_code = "PRESET_INVALID"

    def __init__(self, field: str, problems: tuple[str, ...]) -> None:
        super().__init__(field, problems[0], details="\n".join(problems[1:]) or None)
        self.problems = problems


class RequestTimeout(InvalidInput):
    status = 408

    def __init__(self, problem: str) -> None:
        super().__init__("", problem)


class MethodNotAllowed(InvalidInput):
    """`allow` is the text of an Allow header: HEAD is answered wherever GET is."""

    status = 405
    rest_code = "METHOD_NOT_ALLOWED"

    def __init__(self, method: str, path: str, methods: tuple[str, ...]) -> None:
        allowed = sorted({*methods, *(("HEAD",) if "GET" in methods else ())})
        self.allow = ", ".join(allowed)
        super().__init__("", f"{path} does not answer {method}, only {self.allow}.")


class UpgradeRequired(InvalidInput):
    """A client asked for a websocket where there is none."""

    status = 426
    rest_code = "UPGRADE_REQUIRED"

    def __init__(self, path: str) -> None:
        super().__init__("", f"There is no websocket at {path}. It answers plain HTTP; Socket.IO is at /socket.io.")


class NotFound(ServiceError):
    """`resource` is the kind of thing ("model"), `identifier` what the caller asked for."""

    status = 404
    rest_code = "NOT_FOUND"
    openai_type = "not_found_error"

    def __init__(self, resource: str, identifier: object, message: str = "", *, similar: tuple[str, ...] = ()) -> None:
        super().__init__(message or f"{resource.capitalize()} not found")
        self.resource = resource
        self.identifier = identifier
        self.similar = similar
        if similar:
            self.details = "Did you mean " + ", ".join(similar) + "?"


class PresetNotFound(NotFound):
    socket_code = "PRESET_NOT_FOUND"

    def __init__(self, name: str, *, similar: tuple[str, ...] = ()) -> None:
        super().__init__("preset", name, f"There is no preset {name!r}.", similar=similar)


class Conflict(ServiceError):
    status = 409
    rest_code = "CONFLICT"
    openai_type = "invalid_request_error"


class PermissionDenied(ServiceError):
    status = 403
    rest_code = "PERMISSION_DENIED"
    socket_code = "PERMISSION_DENIED"
    openai_type = "permission_error"


class Overloaded(ServiceError):
    """`retry_after_s` becomes the Retry-After header."""

    status = 429
    rest_code = "RATE_LIMITED"
    openai_type = "rate_limit_error"

    def __init__(self, message: str, *, retry_after_s: int = 1) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class DeadlineExceeded(ServiceError):
    status = 504
    rest_code = "SERVICE_UNAVAILABLE"
    socket_code = "TIMEOUT"
    openai_type = "timeout_error"


class Unavailable(ServiceError):
    status = 503
    rest_code = "SERVICE_UNAVAILABLE"
    openai_type = "unavailable_error"


class EngineStopped(Unavailable):
    def __init__(self, message: str = "The engine is stopped: router not running. Start it first.") -> None:
        super().__init__(message)


class EngineMissing(Unavailable):
    pass


class StoreUnavailable(Unavailable):
    pass


class Cancelled(ServiceError):
    """Not among the statuses that clients take for a reason to try again."""

    status = 499
    rest_code = "CANCELLED"
    openai_type = "cancelled_error"


class LoadFailed(ServiceError):
    """A model's process did not become ready.

    `reason` is one line for people. `exit_code` is the process's, negative for a signal as in
    `subprocess`, None if it never started. `log_tail` are its last lines, oldest first.
    """

    status = 503
    rest_code = "SERVICE_UNAVAILABLE"

    def __init__(self, reason: str, *, exit_code: int | None = None, log_tail: tuple[str, ...] = ()) -> None:
        super().__init__(reason, details="\n".join(log_tail) or None)
        self.reason = reason
        self.exit_code = exit_code
        self.log_tail = log_tail


class NotEnoughMemory(ServiceError):
    """`details` name settings that would fit, one a line."""

    status = 507
    rest_code = "INSUFFICIENT_MEMORY"
    openai_type = "unavailable_error"


class UpstreamFailed(ServiceError):
    status = 502
    rest_code = "SERVICE_UNAVAILABLE"
    openai_type = "upstream_error"


class ContextExceeded(UpstreamFailed):
    """`prompt_tokens` were asked of a context of `context_tokens`."""

    status = 400

    def __init__(self, message: str, prompt_tokens: int, context_tokens: int) -> None:
        super().__init__(message)
        self.prompt_tokens = prompt_tokens
        self.context_tokens = context_tokens
