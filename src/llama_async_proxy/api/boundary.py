"""The boundary for faults of the service: an unexpected exception is logged with a trace id, which its caller gets.

Every way in catches `Exception` once, around everything it does for a request, and calls `report` there. Ways in that
are ASGI applications are wrapped in `AsgiBoundary`, which does so.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from llama_async_proxy.errors import ServiceError

logger = logging.getLogger(__name__)


def report(request: str) -> str:
    """Log the exception that is being handled, with its trace; returns the trace id that finds it in the log.

    `request` names the request that failed, such as "models:list" or "GET /api/models".
    """
    trace_id = uuid.uuid4().hex[:12]
    logger.exception("%s failed unexpectedly, trace %s", request, trace_id)
    return trace_id


def explanation(trace_id: str) -> str:
    """The sentence for the caller, who learns nothing of the exception itself."""
    return f"The service failed unexpectedly. Its log says more under trace {trace_id}."


class AsgiBoundary:
    """Middleware that answers an unexpected exception of `app` with the error answer of its API.

    An answer that has begun is left unfinished: the server then closes the connection, which tells the client.
    """

    def __init__(self, app: ASGIApp, error_answer: Callable[[Scope, ServiceError], ASGIApp]) -> None:
        """`error_answer` renders an error for the request of a scope."""
        self._app = app
        self._error_answer = error_answer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        is_started = False

        async def watched_send(message: Message) -> None:
            nonlocal is_started
            is_started = True
            await send(message)

        try:
            await self._app(scope, receive, watched_send)
        except Exception:  # the boundary for faults of the service
            trace_id = report(f"{scope['method']} {scope['path']}")
            if not is_started:
                error = ServiceError(explanation(trace_id), details=f"trace {trace_id}")
                await self._error_answer(scope, error)(scope, receive, send)
        return None
