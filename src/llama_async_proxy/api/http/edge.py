"""In front of every way in: one spelling of each path, the headers of every answer, and the memory of a request."""

from __future__ import annotations

import re
from urllib.parse import unquote

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from llama_async_proxy.api.body import CODINGS
from llama_async_proxy.api.memory import MEMORY, RequestMemory
from llama_async_proxy.inference.requests import routes

_SLASHES = re.compile(rb"/{2,}")
_NO_SNIFFING = (b"x-content-type-options", b"nosniff")
_NO_STORE = (b"cache-control", b"no-store")
NO_SNIFFING_LINE = b"x-content-type-options: nosniff\r\n"
NO_STORE_LINE = b"cache-control: no-store\r\n"
_TAKEN_CODINGS = (b"accept-encoding", ", ".join(CODINGS).encode())


class EdgeMiddleware:
    """ASGI middleware for requests and websockets."""

    def __init__(self, app: ASGIApp, memory: RequestMemory) -> None:
        self._app = app
        self._memory = memory

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        with self._memory.hold() as hold:
            scope = {**with_plain_path(scope), MEMORY: hold}
            await self._app(scope, receive, _with_headers(scope["path"], send))


def with_plain_path(scope: Scope) -> Scope:
    """`scope` without empty segments in its path and without a slash at its end: `//v1/models/` is `/v1/models`."""
    raw: bytes = scope.get("raw_path") or scope["path"].encode()
    if b"//" not in raw and not raw.endswith(b"/"):
        return scope
    plain = _SLASHES.sub(b"/", raw).rstrip(b"/") or b"/"
    if plain == raw:
        return scope
    return {**scope, "raw_path": plain, "path": unquote(plain.decode("latin-1"))}


def _with_headers(path: str, send: Send) -> Send:
    is_data = path.startswith(("/api/", "/v1/")) or path in routes.PATHS

    async def send_with_headers(message: Message) -> None:
        if message["type"] in ("http.response.start", "websocket.http.response.start"):
            given = message.get("headers", ())
            names = {name.lower() for name, _ in given}
            added = [_NO_SNIFFING, *([_NO_STORE] if is_data else ())]
            if message["status"] == 415:
                added.append(_TAKEN_CODINGS)  # RFC 9110, 12.5.3
            headers = [*given, *(header for header in added if header[0] not in names)]
            message = {**message, "headers": headers}
        await send(message)

    return send_with_headers
