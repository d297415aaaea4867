"""Around the framework: bodies that are too large or no JSON, HEAD, and what nobody expected."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from llama_async_proxy.api.rest.route_policy import RoutePolicy
from llama_async_proxy.errors import InvalidInput, ServiceError, TooLarge

logger = logging.getLogger(__name__)


class BodyLimitMiddleware:
    """Middleware that reads bodies whole before the framework sees them."""

    def __init__(self, app: ASGIApp, manners: Callable[[str], RoutePolicy]) -> None:
        """`manners` are those of the resource at a path."""
        self._app = app
        self._manners = manners

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        manners = self._manners(scope["path"])
        answer = _Answer(send)
        try:
            body = await _read_body(scope, receive, manners.body_limit)
        except ServiceError as refusal:
            return await manners.failure(refusal)(scope, receive, send)
        if body is None:
            return None
        method = "GET" if scope["method"] == "HEAD" else scope["method"]  # the server leaves the body out
        try:
            await self._app({**scope, "method": method}, _replayed(body, receive), answer.send)
        except Exception:  # the door's boundary: whatever it was, the caller gets an answer and the log the trace
            trace_id = uuid.uuid4().hex[:12]
            logger.exception("%s %s failed unexpectedly, trace %s", scope["method"], scope["path"], trace_id)
            message = f"Something failed that should not have. The service's log says more under trace {trace_id}."
            if not answer.is_started:
                await manners.failure(ServiceError(message, details=f"trace {trace_id}"))(scope, receive, send)
        return None


class _UnsupportedBody(InvalidInput):
    status = 415


async def _read_body(scope: Scope, receive: Receive, limit: int) -> bytes | None:
    """The whole body; None when the client left. Raises TooLarge, and _UnsupportedBody for what is not JSON."""
    headers: dict[bytes, bytes] = dict(scope["headers"])
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        body += message.get("body", b"")
        if len(body) > limit:
            raise TooLarge("body", f"must not be larger than {limit >> 20} MiB")
        if not message.get("more_body", False):
            break
    media_type = headers.get(b"content-type", b"").split(b";")[0].strip().lower()
    if body and media_type != b"application/json":
        shown = media_type.decode("latin-1") or "missing"
        raise _UnsupportedBody("Content-Type", f"must be application/json, not {shown}")
    return bytes(body)


def _replayed(body: bytes, receive: Receive) -> Receive:
    messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replay() -> Message:
        return messages.pop() if messages else await receive()

    return replay


class _Answer:
    """Knows whether it is too late to send another."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.is_started = False

    async def send(self, message: Message) -> None:
        self.is_started = True
        await self._send(message)
