"""Connections in the acknowledged dialect: the events about clients that come and go."""

from __future__ import annotations

from msgspec import Struct

from llama_async_proxy.api.socketio.contract import ServerEvent


class ClientNotice(Struct):
    clientId: str  # noqa: N815 - field names are the clients'


CONNECTED = ServerEvent("client:connected", ClientNotice, "Another client connected; 20 a second at most.")
DISCONNECTED = ServerEvent("client:disconnected", ClientNotice, "Another client left; 20 a second at most.")

EVENTS = (CONNECTED, DISCONNECTED)
