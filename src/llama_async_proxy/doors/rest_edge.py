"""Around the framework: bodies that are too large or no JSON, HEAD, and what nobody expected."""

from __future__ import annotations

import logging
import uuid

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from llama_async_proxy.doors.http_errors import error_body
from llama_async_proxy.errors import InvalidInput, ServiceError, TooLarge

logger = logging.getLogger(__name__)

_BODY_LIMIT = 1 << 20


class Edge:
    """Middleware that reads bodies whole before the framework sees them."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        answer = _Answer(send)
        try:
            body = await _read_body(scope, receive)
        except ServiceError as refusal:
            return await answer.fail(refusal.status, error_body(refusal))
        if body is None:
            return None
        method = "GET" if scope["method"] == "HEAD" else scope["method"]  # the server leaves the body out
        try:
            await self._app({**scope, "method": method}, _replayed(body, receive), answer.send)
        except Exception:  # the door's boundary: whatever it was, the caller gets an answer and the log the trace
            trace_id = uuid.uuid4().hex[:12]
            logger.exception("%s %s failed unexpectedly, trace %s", scope["method"], scope["path"], trace_id)
            message = f"Something failed that should not have. The service's log says more under trace {trace_id}."
            await answer.fail_unexpectedly(ServiceError(message, details=f"trace {trace_id}"))
        return None


class _UnsupportedBody(InvalidInput):
    status = 415


async def _read_body(scope: Scope, receive: Receive) -> bytes | None:
    """The whole body; None when the client left. Raises TooLarge, and _UnsupportedBody for what is not JSON."""
    headers: dict[bytes, bytes] = dict(scope["headers"])
    body: bytes = b""
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        body += message.get("body", b"")
        if len(body) > _BODY_LIMIT:
            raise TooLarge("body", "must not be larger than 1 MiB")
        if not message.get("more_body", False):
            break
    media_type = headers.get(b"content-type", b"").split(b";")[0].strip().lower()
    if body and media_type != b"application/json":
        shown = media_type.decode("latin-1") or "missing"
        raise _UnsupportedBody("Content-Type", f"must be application/json, not {shown}")
    return body


def _replayed(body: bytes, receive: Receive) -> Receive:
    messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replay() -> Message:
        return messages.pop() if messages else await receive()

    return replay


class _Answer:
    """Sends an answer, and knows whether it is too late to send another."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._started = False

    async def send(self, message: Message) -> None:
        self._started = True
        await self._send(message)

    async def fail(self, status: int, body: bytes) -> None:
        headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
        await self._send({"type": "http.response.start", "status": status, "headers": headers})
        await self._send({"type": "http.response.body", "body": body})

    async def fail_unexpectedly(self, error: ServiceError) -> None:
        if not self._started:
            await self.fail(error.status, error_body(error))
