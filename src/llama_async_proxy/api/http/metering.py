"""Counts the HTTP requests of the programs' doors: what answers, how, and for how long."""

from __future__ import annotations

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from llama_async_proxy.inference.requests import routes
from llama_async_proxy.monitor.requests import RequestMeter

_PREFIXES = ("/api/", "/v1/")


class MeteringMiddleware:
    """Pages, assets and the sockets' polling are not counted: their number says nothing about the service's work."""

    def __init__(self, app: ASGIApp, meter: RequestMeter) -> None:
        self._app = app
        self._meter = meter

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not _is_counted(scope["path"]):
            await self._app(scope, receive, send)
            return
        exchange = _Exchange(receive, send)
        token = self._meter.start()
        try:
            await self._app(scope, exchange.receive, exchange.send)
        finally:
            self._meter.finish(token, scope.get(routes.RECORDED_STATUS) or exchange.status, broken=exchange.is_broken)


def _is_counted(path: str) -> bool:
    return path.startswith(_PREFIXES) or path in routes.PATHS


class _Exchange:
    """One request and its answer, watched as they pass."""

    def __init__(self, receive: Receive, send: Send) -> None:
        self._receive = receive
        self._send = send
        self._complete = False
        self._client_left = False
        self._status: int | None = None

    @property
    def status(self) -> int:
        """Without an answer: nginx's 499 when the client did not wait for one, else a failure of ours."""
        return self._status or (499 if self._client_left else 500)

    @property
    def is_broken(self) -> bool:
        """The answer stopped short, and not because its reader left."""
        return not self._complete and not self._client_left

    async def receive(self) -> Message:
        message = await self._receive()
        self._client_left = self._client_left or message["type"] == "http.disconnect"
        return message

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._status = message["status"]
        elif message["type"] == "http.response.body" and not message.get("more_body", False):
            self._complete = True
        await self._send(message)
