"""Base of the namespaces: the clients of one dialect, and the requests and events that they share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar

from llama_async_proxy.api.socketio.emitter import Emitter
from llama_async_proxy.operations.context import Context


class Namespace(ABC):
    """One namespace of the Socket.IO server, which calls these methods.

    `context` is called when a client is there, because namespaces are built before the service's parts.
    """

    name: ClassVar[str]
    """Name by which clients connect, such as "/ui"."""

    def __init__(self, context: Callable[[], Context], emitter: Emitter) -> None:
        self._context = context
        self._emitter = emitter
        self._clients: set[str] = set()
        """Ids of the clients connected now."""

    def connected(self, client: str) -> None:
        """Called when a client has connected."""
        self._clients.add(client)

    def disconnected(self, client: str) -> None:
        """Called when a client has left."""
        self._clients.discard(client)

    def is_connected(self, client: str) -> bool:
        """True while the client is here. A request may run after its client left; what it adds would stay for ever."""
        return client in self._clients

    @abstractmethod
    async def answer(self, client: str, event: object, payload: object, *, acknowledged: bool) -> object:
        """Handle a request; returns the acknowledgement, sent when `acknowledged` is true. Never raises."""

    @abstractmethod
    async def run(self) -> None:
        """Send the events that no client asked for, until cancelled."""

    async def announce_shutdown(self) -> None:  # noqa: B027 - most dialects have no such event
        """Called before the connections of all clients are closed."""
