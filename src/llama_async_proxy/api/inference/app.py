"""The inference door: plain ASGI, because a token's way must be short. Reads the body, hands over, writes what comes.

`handles` says which requests are its own, so that the application dispatches before any framework sees them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec
import msgspec.structs
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from llama_async_proxy.api.body import read_body
from llama_async_proxy.api.boundary import AsgiBoundary
from llama_async_proxy.errors import MethodNotAllowed, NotFound, ServiceError
from llama_async_proxy.inference.proxy import Proxy
from llama_async_proxy.inference.requests import forwarding, model_list, routes
from llama_async_proxy.inference.requests.error_formats import error_body, format_of
from llama_async_proxy.inference.requests.names import Names, choose
from llama_async_proxy.inference.upstream.response_headers import Header
from llama_async_proxy.records.runtime import ModelRuntime
from llama_async_proxy.settings import Settings

_MODELS = "/v1/models"
_HEALTH = ("/health", "/v1/health")


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
        return path in routes.PATHS or f"{path}/".startswith("/v1/") or path in _HEALTH

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
        request = forwarding.InferenceRequest(
            route, scope["method"], scope["query_string"], scope["headers"], b"", peer
        )
        try:
            body = await read_body(scope, receive, self._settings().max_body_mib << 20, "inference.maxBodyMiB")
        except ServiceError as error:
            await self._proxy.refuse(request, reply, error)
            return
        if body is not None:
            asked = msgspec.structs.replace(request, body=body)
            scope[routes.RECORDED_STATUS] = await self._proxy.handle(asked, reply, lambda: _disconnected(receive))

    async def _answer_ourselves(self, method: str, path: str, reply: _AsgiReply) -> None:
        try:
            body = msgspec.json.encode(self._answer(method, path))
            status = 200
            headers: list[Header] = []
        except ServiceError as error:
            body = error_body(format_of(path), error)
            status = error.status
            headers = [(b"allow", error.allow.encode())] if isinstance(error, MethodNotAllowed) else []
        headers += [(b"content-type", b"application/json; charset=utf-8"), (b"content-length", b"%d" % len(body))]
        await reply.start(status, headers)
        await reply.write(body, more=False)

    def _answer(self, method: str, path: str) -> object:
        """What /v1 says that no engine can: the routes that speak of all models."""
        is_ours = path in _HEALTH or path == _MODELS or path.startswith(f"{_MODELS}/")
        if method not in ("GET", "HEAD") or not is_ours:
            raise _no_route(method, path, ("GET",) if is_ours else routes.methods(path))
        if path in _HEALTH:
            return {"status": "ok"}
        index = self._names.index
        if path == _MODELS:
            listed = model_list.model_list((model, self._runtime(model.id)) for model in index.listed)
            return listed if self._proxy.knows_all_models else {**listed, "scanning": True}
        model = choose(index, path.removeprefix(f"{_MODELS}/"))
        return model_list.entry(model, self._runtime(model.id))


def _error_answer(scope: Scope, error: ServiceError) -> ASGIApp:
    return Response(error_body(format_of(scope["path"]), error), error.status, media_type="application/json")


class _AsgiReply:
    def __init__(self, send: Send) -> None:
        self._send = send

    async def start(self, status: int, headers: Sequence[Header]) -> None:
        await self._send({"type": "http.response.start", "status": status, "headers": list(headers)})

    async def write(self, chunk: bytes, *, more: bool) -> None:
        await self._send({"type": "http.response.body", "body": chunk, "more_body": more})


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _no_route(method: str, path: str, methods: tuple[str, ...]) -> ServiceError:
    if methods:
        return MethodNotAllowed(method, path, methods)
    return NotFound("route", path, f"There is no {method} {path}. The routes are llama-server's.")
