"""The connection itself over Socket.IO v1: `connection:ack` and its answer."""

from __future__ import annotations

from msgspec import Struct

from llama_async_proxy.api.socketio.contract import ConnectionCall, Nothing, ServerEvent


class Established(Struct):
    clientId: str  # noqa: N815 - field names are the clients'
    timestamp: int


class Acknowledged(Struct):
    clientId: str  # noqa: N815


ESTABLISHED = ServerEvent(
    "connection:established", Established, "Answers connection:ack; only the client that asked receives it."
)
ACK = ConnectionCall("connection:ack", Nothing, Acknowledged, "Answered with connection:established.")

EVENTS = (ESTABLISHED,)
CALLS = (ACK,)
