"""The connections to models' processes, in use or idle, and their time limits.

The rules follow llama-server (measured on llama.cpp b11434, vendor/cpp-httplib). It closes the connection after every
streamed response although it promises keep-alive, and closes idle connections after 5 s. So only connections of
responses with a content length become idle, for less than that. A request on an idle connection that dies before the
first byte is sent once more on a new connection. There is no other retry: a generation must not run twice.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from llama_async_proxy.inference.upstream.connection import UpstreamConnection
from llama_async_proxy.inference.upstream.response_headers import ResponseHeadCache
from llama_async_proxy.records.runtime import Endpoint
from llama_async_proxy.settings import Settings

MAX_IDLE = 32
"""Idle connections per model. After a burst of hundreds, more would only be sockets to close."""
_CHECK_S = 0.4
"""Seconds between two checks of all deadlines, at most. One timer serves all connections, so that a request costs none;
an idle connection is still closed before llama-server's 5 s."""


MAX_PLAIN = 256
"""Processes that are remembered; the oldest are forgotten first, and found out again."""


class PlainEndpoints:
    """Processes whose streams do not tell what their whole answers would be: each is asked for whole answers only."""

    def __init__(self) -> None:
        self._endpoints: dict[Endpoint, None] = {}

    def __contains__(self, endpoint: Endpoint) -> bool:
        return endpoint in self._endpoints

    def add(self, endpoint: Endpoint) -> None:
        self._endpoints[endpoint] = None
        if len(self._endpoints) > MAX_PLAIN:
            del self._endpoints[next(iter(self._endpoints))]


class ConnectionPool:
    """All connections to engines. The pool belongs to one event loop."""

    def __init__(self, settings: Callable[[], Settings]) -> None:
        self.settings = settings
        self.loop = asyncio.get_running_loop()
        self.head_cache = ResponseHeadCache()
        self.plain_endpoints = PlainEndpoints()
        self._connections: set[UpstreamConnection] = set()
        self._idle: dict[Endpoint, list[UpstreamConnection]] = {}
        self._timer: asyncio.TimerHandle | None = None

    # --- for users of connections -------------------------------------------------------------------

    def take(self, endpoint: Endpoint) -> UpstreamConnection:
        """An idle connection that seems to be alive, else a new one."""
        idle = self._idle.get(endpoint)
        while idle:
            connection = idle.pop()
            if connection.is_alive:
                return connection
            connection.abort()
        return self.connect(endpoint)

    def connect(self, endpoint: Endpoint) -> UpstreamConnection:
        """A new connection, about to open."""
        connection = UpstreamConnection(endpoint, self)
        connection.connect(self.settings().connect_timeout_s)
        return connection

    def connect_ahead(self, endpoint: Endpoint) -> None:
        """Open an idle connection for the next request: the one in use will be closed after its stream, and connecting
        takes as long as everything else that is done here for a first token."""
        idle = self._idle.setdefault(endpoint, [])
        if not idle:
            idle.append(self.connect(endpoint))

    def put_back(self, connection: UpstreamConnection) -> None:
        """Take back a connection whose response has ended: it becomes idle, or is closed."""
        if connection.is_reusable and len(idle := self._idle.setdefault(connection.endpoint, [])) < MAX_IDLE:
            connection.idle()
            idle.append(connection)
        else:
            connection.abort()

    def close(self) -> None:
        """Close every connection at once; responses that are coming in fail."""
        for connection in tuple(self._connections):
            connection.close()

    # --- for its connections ------------------------------------------------------------------------

    def on_opened(self, connection: UpstreamConnection) -> None:
        self._connections.add(connection)
        if self._timer is None:
            self._check_later()

    def on_lost(self, connection: UpstreamConnection) -> None:
        self._connections.discard(connection)
        idle = self._idle.get(connection.endpoint)
        if idle and connection in idle:
            idle.remove(connection)
        if not idle:
            self._idle.pop(connection.endpoint, None)

    def _check_later(self) -> None:
        settings = self.settings()
        limits_s = (settings.connect_timeout_s, settings.first_token_timeout_s, settings.idle_timeout_s)
        pause_s = min(_CHECK_S, min(limits_s) / 4)
        self._timer = self.loop.call_later(pause_s, self._check)

    def _check(self) -> None:
        now_s = self.loop.time()
        for connection in tuple(self._connections):
            if now_s >= connection.deadline_s:
                connection.expire()
        self._timer = None
        if self._connections:
            self._check_later()
