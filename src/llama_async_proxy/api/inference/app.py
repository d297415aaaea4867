"""The inference door: plain ASGI, because a token's way must be short. Reads the body, hands over, writes what comes.

`handles` says which requests are its own, so that the application dispatches before any framework sees them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import msgspec
import msgspec.structs
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from llama_async_proxy.api.boundary import AsgiBoundary
from llama_async_proxy.errors import NotFound, RequestTimeout, ServiceError, TooLarge
from llama_async_proxy.inference.proxy import Proxy
from llama_async_proxy.inference.requests import model_list, routes
from llama_async_proxy.inference.requests.error_formats import ApiFormat, error_body
from llama_async_proxy.inference.requests.forwarding import InferenceRequest
from llama_async_proxy.inference.requests.names import Names, choose
from llama_async_proxy.inference.upstream.response_headers import Header
from llama_async_proxy.records.runtime import ModelRuntime
from llama_async_proxy.settings import Settings

_MODELS = "/v1/models"
_HEALTH = ("/health", "/v1/health")
BODY_SILENCE_S = 30.0
"""Longest pause of a client in the middle of its request's body."""


class InferenceApp:
    """An ASGI application for the requests it `handles`."""

    def __init__(
        self,
        proxy: Proxy,
        *,
        names: Names,
        runtime: Callable[[int], ModelRuntime],
        settings: Callable[[], Settings],
    ) -> None:
        self._proxy = proxy
        self._names = names
        self._runtime = runtime
        self._settings = settings
        self._guarded = AsgiBoundary(self._serve, _error_answer)

    @staticmethod
    def handles(scope: Scope) -> bool:
        """True for the engine's routes, and for everything else below /v1: its clients expect JSON, not a page."""
        if scope["type"] != "http":
            return False
        path: str = scope["path"]
        if path == "/metrics":  # without a model it is the service's own
            return routes.model_in_query(scope["query_string"]) is not None
        return path in routes.PATHS or path.startswith("/v1/") or path in _HEALTH

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._guarded(scope, receive, send)

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        reply = _AsgiReply(send)
        route = routes.find(scope["method"], scope["path"])
        if route is None:
            await self._answer_ourselves(scope["method"], scope["path"], reply)
            return
        client = scope.get("client")
        peer: str = client[0] if client else ""
        request = InferenceRequest(route, scope["method"], scope["query_string"], scope["headers"], b"", peer)
        try:
            body = await _read_body(request.headers, receive, self._settings().max_body_mib)
        except (TooLarge, RequestTimeout) as error:
            await self._proxy.refuse(request, reply, error)
            return
        if body is not None:
            asked = msgspec.structs.replace(request, body=body)
            scope[routes.RECORDED_STATUS] = await self._proxy.handle(asked, reply, lambda: _disconnected(receive))

    async def _answer_ourselves(self, method: str, path: str, reply: _AsgiReply) -> None:
        try:
            body = msgspec.json.encode(self._answer(method, path))
            status = 200
        except ServiceError as error:
            body = error_body(_api_format(path), error)
            status = error.status
        content_length = (b"content-length", b"%d" % len(body))
        await reply.start(status, [(b"content-type", b"application/json; charset=utf-8"), content_length])
        await reply.write(body, more=False)

    def _answer(self, method: str, path: str) -> object:
        """What /v1 says that no engine can: the routes that speak of all models."""
        if method not in ("GET", "HEAD"):
            raise _no_route(method, path)
        if path in _HEALTH:
            return {"status": "ok"}
        index = self._names.index
        if path == _MODELS:
            listed = model_list.model_list((model, self._runtime(model.id)) for model in index.listed)
            return listed if self._proxy.knows_all_models else {**listed, "scanning": True}
        if path.startswith(f"{_MODELS}/"):
            model = choose(index, path.removeprefix(f"{_MODELS}/"))
            return model_list.entry(model, self._runtime(model.id))
        raise _no_route(method, path)


def _api_format(path: str) -> ApiFormat:
    return ApiFormat.ANTHROPIC if path.startswith("/v1/messages") else ApiFormat.OPENAI


def _error_answer(scope: Scope, error: ServiceError) -> ASGIApp:
    return Response(error_body(_api_format(scope["path"]), error), error.status, media_type="application/json")


class _AsgiReply:
    def __init__(self, send: Send) -> None:
        self._send = send

    async def start(self, status: int, headers: Sequence[Header]) -> None:
        await self._send({"type": "http.response.start", "status": status, "headers": list(headers)})

    async def write(self, chunk: bytes, *, more: bool) -> None:
        await self._send({"type": "http.response.body", "body": chunk, "more_body": more})


async def _read_body(headers: routes.Headers, receive: Receive, limit_mib: int) -> bytes | None:
    """The whole body; None when the client left while sending it.

    Raises TooLarge before keeping what is too much, RequestTimeout when no more of it comes.
    """
    limit = limit_mib << 20
    too_large = TooLarge("body", f"is larger than {limit_mib} MiB, the limit set by inference.maxBodyMiB")
    declared = next((value for name, value in headers if name == b"content-length"), b"")
    if declared.isdigit() and int(declared) > limit:
        raise too_large
    parts: list[bytes] = []
    size = 0
    while True:
        message = await _more(receive)
        if message["type"] == "http.disconnect":
            return None
        part: bytes = message.get("body", b"")
        size += len(part)
        if size > limit:
            raise too_large
        parts.append(part)
        if not message.get("more_body", False):
            return parts[0] if len(parts) == 1 else b"".join(parts)


async def _more(receive: Receive) -> Message:
    try:
        async with asyncio.timeout(BODY_SILENCE_S):
            return await receive()
    except TimeoutError:
        raise RequestTimeout(f"The request's body stopped arriving for {BODY_SILENCE_S:g} s.") from None


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _no_route(method: str, path: str) -> NotFound:
    allowed = routes.methods(path)
    hint = f"It answers {' and '.join(allowed)}." if allowed else "The routes are llama-server's."
    return NotFound("route", path, f"There is no {method} {path}. {hint}")
