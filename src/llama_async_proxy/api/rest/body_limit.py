"""Middleware around FastAPI that reads bodies whole, refuses those that are too large or not JSON, and answers HEAD."""

from __future__ import annotations

from collections.abc import Callable

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from llama_async_proxy.api.body import read_body
from llama_async_proxy.api.decode import check_json
from llama_async_proxy.api.rest.routing import RoutePolicy
from llama_async_proxy.errors import InvalidInput, ServiceError


class BodyLimitMiddleware:
    def __init__(self, app: ASGIApp, policy: Callable[[str], RoutePolicy]) -> None:
        """`policy` gives the policy of the routes at a path."""
        self._app = app
        self._policy = policy

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        policy = self._policy(scope["path"])
        try:
            body = await _read_body(scope, receive, policy.body_limit)
        except ServiceError as refusal:
            return await policy.failure(refusal)(scope, receive, send)
        if body is None:
            return None
        method = "GET" if scope["method"] == "HEAD" else scope["method"]  # the server leaves the body out
        return await self._app({**scope, "method": method}, _replayed(body, receive), send)


class _UnsupportedBody(InvalidInput):
    status = 415


async def _read_body(scope: Scope, receive: Receive, limit: int) -> bytes | None:
    """The whole body, decoded; None when the client left.

    Raises what `read_body` raises, _UnsupportedBody for a body that is not said to be JSON, and InvalidInput for values
    that JSON does not have.
    """
    headers: dict[bytes, bytes] = dict(scope["headers"])
    body = await read_body(scope, receive, limit)
    media_type = headers.get(b"content-type", b"").split(b";")[0].strip().lower()
    if body and media_type != b"application/json":
        shown = media_type.decode("latin-1") or "missing"
        raise _UnsupportedBody("Content-Type", f"must be application/json, not {shown}")
    if body:
        check_json(body)
    return body


def _replayed(body: bytes, receive: Receive) -> Receive:
    """A `receive` that gives the body that was read, then what the server still has to say."""
    messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replay() -> Message:
        return messages.pop() if messages else await receive()

    return replay
