"""What a namespace may do with its clients."""

from __future__ import annotations

from collections.abc import Collection
from enum import Enum
from typing import Final, Protocol


class Mark(Enum):
    TOO_LARGE = "too large"


TOO_LARGE: Final = Mark.TOO_LARGE
"""Stands for a payload that was larger than a packet may be."""


class Server(Protocol):
    """The part of the Socket.IO server that is used here."""

    async def emit(self, event: str, data: object, *, to: str | None, namespace: str) -> None: ...
    def backlog(self, client: str) -> int: ...
    def show(self, event: str, data: object, clients: Collection[str], namespace: str) -> None: ...


class Emitter:
    """One namespace of the server, to send by."""

    def __init__(self, server: Server, namespace: str) -> None:
        self._server = server
        self._namespace = namespace

    async def send(self, client: str, event: str, data: object) -> None:
        """To one client; nothing happens when it has left."""
        await self._server.emit(event, data, to=client, namespace=self._namespace)

    async def broadcast(self, event: str, data: object) -> None:
        """To every client of the namespace."""
        await self._server.emit(event, data, to=None, namespace=self._namespace)

    def show(self, event: str, data: object, clients: Collection[str]) -> None:
        """To those clients that keep up; the others have no use for an old value once there is a new one.

        It may overtake what waits to be sent.
        """
        self._server.show(event, data, clients, self._namespace)

    def backlog(self, client: str) -> int:
        """How many packets wait for the client, which has no other way to say that it is slow."""
        return self._server.backlog(client)
