"""Sending to the clients of one namespace."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final, Protocol

from msgspec import Struct

from llama_async_proxy.errors import InvalidInput


class Unreadable(Struct, frozen=True):
    """Stands in for a payload that was not read; `problem` is for its sender."""

    field: str
    problem: str
    request_id: str | int | None = None

    def refusal(self) -> InvalidInput:
        return InvalidInput(self.field, self.problem)


TOO_LARGE: Final = Unreadable("payload", "must not be larger than 1 MB")
"""Stands in for a payload that exceeded the size limit of a packet."""


class Transmitter(Protocol):
    """The part of the Socket.IO server that an emitter needs."""

    async def emit(self, event: str, data: object, *, to: str | None, namespace: str) -> None: ...
    def emit_volatile(self, event: str, data: object, clients: Collection[str], namespace: str) -> None: ...
    def backlog(self, client: str) -> int: ...


class Emitter:
    """Sends events to clients of one namespace. `data` is JSON values."""

    def __init__(self, server: Transmitter, namespace: str) -> None:
        self._server = server
        self._namespace = namespace

    async def send(self, client: str, event: str, data: object) -> None:
        """Send to one client; nothing happens when it has left."""
        await self._server.emit(event, data, to=client, namespace=self._namespace)

    async def broadcast(self, event: str, data: object) -> None:
        """Send to every client of the namespace."""
        await self._server.emit(event, data, to=None, namespace=self._namespace)

    def emit_volatile(self, event: str, data: object, clients: Collection[str]) -> None:
        """Send to those of `clients` that keep up; slow clients miss it. It may overtake queued events.

        This suits values that the next one replaces, such as samples.
        """
        self._server.emit_volatile(event, data, clients, self._namespace)

    def backlog(self, client: str) -> int:
        """Number of packets queued for the client; a client that reads slowly has many."""
        return self._server.backlog(client)
