"""The listening sockets and uvicorn, with an orderly goodbye.

uvicorn waits for connections to close before it tells the application to stop, so a stream or a polling client would
hold it up; what ends them must therefore run first, in `shutdown`.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
from collections.abc import Awaitable, Callable, Iterator
from typing import TypeAlias

import uvicorn
from starlette.types import ASGIApp

from llama_async_proxy.api.http.websocket import WebSocketProtocol
from llama_async_proxy.errors import Unavailable

Goodbye: TypeAlias = Callable[[Callable[[], bool]], Awaitable[None]]
"""Ends what clients have open; bounded, and at once when the callable it is given says to hurry."""

KEEP_ALIVE_S = 75
"""For a connection without a request, as nginx's default. Clients' pools keep one for up to a minute and lose a POST
that meets its end."""
_CLOSE_S = 3
"""For connections to close after their streams were ended."""
_LOOPBACK_TWINS = {"127.0.0.1": "::1", "localhost": "::1"}
"""Browsers try ::1 first for `localhost`; somebody else's server there would answer in our place."""


def listen(host: str, port: int) -> list[socket.socket]:
    """Listening sockets for `host`, with the IPv6 twin of a loopback address where there is one.

    They listen from here on, so that a port in use shows before anything is started, and clients that come early
    wait instead of being refused. Raises Unavailable naming the port.
    """
    listeners = [_listener("127.0.0.1" if host == "localhost" else host, port)]
    twin = _LOOPBACK_TWINS.get(host)
    if twin is not None and _has_address(twin):
        try:
            listeners.append(_listener(twin, port))
        except Unavailable:
            listeners[0].close()
            raise
    return listeners


def _listener(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listener.bind((host, port))
        listener.listen(2048)
        listener.setblocking(False)
    except OSError as exc:
        listener.close()
        raise Unavailable(_why_not(exc, host, port)) from exc
    return listener


def _why_not(exc: OSError, host: str, port: int) -> str:
    if exc.errno == errno.EADDRINUSE:
        return f"port {port} on {host} is in use by another program; stop that one or choose another with --port"
    if exc.errno == errno.EACCES:
        return f"port {port} on {host} needs rights this user has not; choose one above 1023 with --port"
    return f"cannot listen on {host}, port {port}: {exc.strerror or exc}; choose another with --host and --port"


def _has_address(host: str) -> bool:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind((host, 0))
    except OSError:
        return False
    return True


class Server(uvicorn.Server):
    """uvicorn's server for `app`, speaking through `http`.

    `serve(sockets)` returns after `stop` and the goodbye.
    """

    def __init__(self, app: ASGIApp, http: type[asyncio.Protocol], goodbye: Goodbye) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                http=http,
                ws=WebSocketProtocol,
                ws_per_message_deflate=False,  # costs more CPU per message than everything else together
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
                timeout_graceful_shutdown=_CLOSE_S,
                timeout_keep_alive=KEEP_ALIVE_S,
            )
        )
        self._goodbye = goodbye

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for server in self.servers:
            server.close()
        await self._goodbye(lambda: self.force_exit)
        await super().shutdown(sockets)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals alone: `Signals` handles them, also before and after this server runs."""
        yield

    def stop(self) -> None:
        """End `serve` in order; the second call hurries it."""
        self.force_exit = self.should_exit
        self.should_exit = True
