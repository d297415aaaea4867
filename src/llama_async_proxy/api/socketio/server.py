"""The one Socket.IO server behind both Engine.IO paths, and what its namespaces have in common."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Mapping
from typing import Any, Protocol
from urllib.parse import parse_qs

import socketio
from engineio import packet as engine_packet
from engineio.payload import Payload
from socketio import packet

from llama_async_proxy.api.http.access import accepts_origin
from llama_async_proxy.api.http.websocket import WRITE_FRAME, FrameWriter, text_frame
from llama_async_proxy.api.socketio.ack.dialect import ACK
from llama_async_proxy.api.socketio.ack.namespace import AckNamespace
from llama_async_proxy.api.socketio.emitter import TOO_LARGE, Emitter
from llama_async_proxy.api.socketio.v1.dialect import V1
from llama_async_proxy.api.socketio.v1.namespace import V1Namespace
from llama_async_proxy.api.ui.namespace import UiNamespace
from llama_async_proxy.operations.context import Context

logger = logging.getLogger(__name__)

PAYLOAD_LIMIT = 1_000_000
"""Characters of one packet; what is larger is answered, not read."""
_TRANSPORT_LIMIT = 8_000_000
"""Above it the transport closes without a word, so it is far above our own limit."""
_PACKETS_PER_POLL = 5000
"""A polling client sends all that has piled up in one request; the library's 16 would cut off a busy one."""
_MOST_QUEUED = 10_000
"""Packets waiting for a client that does not read; then it is disconnected. A first scan announces thousands."""
_SLOW = 4
"""Packets waiting for a client that make it too slow for a sample."""
_PING_INTERVAL_S = 25
_PING_TIMEOUT_S = 20


class Namespace(Protocol):
    """One dialect."""

    def connected(self, client: str) -> None: ...
    def disconnected(self, client: str) -> None: ...

    async def answer(self, client: str, event: object, payload: object, *, acknowledged: bool) -> object:
        """React to an event. What is returned is the acknowledgement, if the client asked for one. Never raises."""

    async def run(self) -> None:
        """Send what nobody asked for, until cancelled."""


class Sockets:
    """Built before the services are, used after: `context` is asked when a client is there."""

    def __init__(self, context: Callable[[], Context]) -> None:
        self.server = _Server(context)
        self._v1 = V1Namespace(context, Emitter(self.server, V1.namespace))
        self._namespaces: Mapping[str, Namespace] = {
            V1.namespace: self._v1,
            ACK.namespace: AckNamespace(context, Emitter(self.server, ACK.namespace)),
            "/ui": UiNamespace(context, Emitter(self.server, "/ui")),
        }
        for name, namespace in self._namespaces.items():
            self.server.attach(name, namespace)

    async def run(self) -> None:
        """Feed the clients until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            for namespace in self._namespaces.values():
                tasks.create_task(namespace.run())

    async def close(self) -> None:
        """Close every connection at the transport: a client told so by its namespace would not come back by itself."""
        await self._v1.farewell()
        await self.server.close_transports()


class _BoundedPacket(packet.Packet):  # type: ignore[misc]
    """A packet whose payload, when it is too large, is replaced by a mark, so that its sender can be told."""

    data: Any

    def decode(self, encoded_packet: str) -> int:
        attachments: int = super().decode(encoded_packet)
        if len(encoded_packet) > PAYLOAD_LIMIT and self.packet_type == packet.EVENT and isinstance(self.data, list):
            self.data = [*self.data[:1], TOO_LARGE]
        return attachments


class _Manager(socketio.AsyncManager):  # type: ignore[misc]
    """Clients are in two rooms, everybody's and their own; the library looks through those of all clients."""

    def basic_disconnect(self, sid: str, namespace: str, **_: object) -> None:
        for room in (None, sid):
            self.basic_leave_room(sid, namespace, room)
        self.callbacks.pop(sid, None)
        for pending in (self.pending_connect, self.pending_disconnect):
            if sid in (clients := pending.get(namespace, ())):
                clients.remove(sid)


class _Server(socketio.AsyncServer):  # type: ignore[misc]
    """AsyncServer that hands every event to its namespace together with whether an answer was asked for.

    python-socketio tells handlers neither that nor about events without a handler, hence the overridden internals;
    the range of versions in pyproject.toml and the tests hold them in place.
    """

    def __init__(self, context: Callable[[], Context]) -> None:
        quiet = logging.getLogger(f"{__name__}.library")
        quiet.setLevel(logging.WARNING)  # below, the libraries log every packet
        super().__init__(
            async_mode="asgi",
            client_manager=_Manager(),
            serializer=_BoundedPacket,
            logger=quiet,
            engineio_logger=quiet,
            ping_interval=_PING_INTERVAL_S,
            ping_timeout=_PING_TIMEOUT_S,
            max_http_buffer_size=_TRANSPORT_LIMIT,
            cors_allowed_origins=lambda _, environ: accepts_origin(
                environ["asgi.scope"], context().configuration.settings
            ),
            cors_credentials=False,
        )
        Payload.max_decode_packets = _PACKETS_PER_POLL
        self._live = context
        self._attached: dict[str, Namespace] = {}
        self._answering: set[asyncio.Task[Any]] = set()
        self._turns = asyncio.Lock()
        self._transports: dict[str, Any] = {}
        """The Engine.IO session of each client."""
        self._writers: dict[str, FrameWriter] = {}
        """Of clients on a websocket, by Engine.IO session."""

    def attach(self, name: str, namespace: Namespace) -> None:
        async def connected(client: str, _environ: object, _auth: object = None) -> None:
            self._transports[client] = self.eio.sockets.get(self.manager.eio_sid_from_sid(client, name))
            namespace.connected(client)

        async def disconnected(client: str, _reason: object = None) -> None:
            self._transports.pop(client, None)
            namespace.disconnected(client)

        self._attached[name] = namespace
        self.on("connect", connected, namespace=name)
        self.on("disconnect", disconnected, namespace=name)

    def backlog(self, client: str) -> int:
        """Packets waiting to be taken by the client's transport."""
        transport = self._transports.get(client)
        return transport.queue.qsize() if transport else 0

    def show(self, event: str, data: object, clients: Collection[str], namespace: str) -> None:
        """One frame for all, written at once: the library would make a task, a queue entry and a frame for each."""
        shown = self.packet_class(packet.EVENT, namespace=namespace, data=[event, data])
        message = engine_packet.Packet(engine_packet.MESSAGE, data=shown.encode())
        frame = text_frame(message.encode())
        for client in clients:
            transport = self._transports.get(client)
            if transport is None or transport.closed or transport.queue.qsize() >= _SLOW:
                continue
            writer = self._writers.get(transport.sid) if transport.upgraded else None
            if writer is None:
                transport.queue.put_nowait(message)
            else:
                writer(frame)
        self._live().connections.message(len(clients))

    async def close_transports(self) -> None:
        for transport in tuple(self.eio.sockets.values()):
            await _close(transport)
        for task in self._answering:
            task.cancel()
        await asyncio.gather(*self._answering, return_exceptions=True)
        if self.eio.service_task_handle:  # the library stops its own task only once, and only when it runs
            await self.shutdown()

    # --- overridden ---------------------------------------------------------------------------------------------------

    async def _handle_event_internal(
        self,
        server: object,  # noqa: ARG002 - the library passes itself
        sid: str,
        eio_sid: str,
        data: list[Any],
        namespace: str,
        id: int | None,  # noqa: A002
    ) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - for the type checker: the library calls this in a task of its own
        self._answering.add(task)
        try:
            self._live().connections.message()
            payload = data[1] if len(data) > 1 else None
            # The first acknowledgement a client asks for has the id 0.
            acknowledged = id is not None
            reply = await self._attached[namespace].answer(sid, data[0], payload, acknowledged=acknowledged)
            if acknowledged:
                ack = self.packet_class(packet.ACK, namespace=namespace, id=id, data=[reply])
                await self._send_packet(eio_sid, ack)
        finally:
            self._answering.discard(task)

    async def _handle_eio_message(self, eio_sid: str, data: str | bytes) -> None:
        try:
            await super()._handle_eio_message(eio_sid, data)
        except Exception as exc:
            logger.warning("A Socket.IO client sent what is no packet and is disconnected: %r", exc)
            if transport := self.eio.sockets.get(eio_sid):
                await _close(transport)

    async def handle_request(self, scope: Any, receive: Any, send: Any) -> Any:
        """A session that moves to a websocket says which one it is."""
        if scope["type"] == "websocket":
            await self._turn()
            for eio_sid in parse_qs(scope["query_string"].decode("latin-1")).get("sid", ()):
                self._remember_writer(eio_sid, scope)
        return await super().handle_request(scope, receive, send)

    async def _turn(self) -> None:
        """One client comes or goes in a round of the event loop: when thousands do, others are still served between."""
        async with self._turns:
            await asyncio.sleep(0)

    def _remember_writer(self, eio_sid: str, scope: Any) -> None:
        writer = scope.get("extensions", {}).get(WRITE_FRAME)
        if writer is not None and (eio_sid in self.eio.sockets):
            self._writers[eio_sid] = writer

    async def _handle_eio_connect(self, eio_sid: str, environ: dict[str, Any]) -> Any:
        self._live().connections.connected(eio_sid)
        self._remember_writer(eio_sid, environ["asgi.scope"])
        return await super()._handle_eio_connect(eio_sid, environ)

    async def _handle_eio_disconnect(self, eio_sid: str, reason: str) -> None:
        self._live().connections.disconnected(eio_sid)
        self._writers.pop(eio_sid, None)
        transport = self.eio.sockets.get(eio_sid)
        if transport and reason == self.reason.CLIENT_DISCONNECT:
            transport.queue.put_nowait(None)  # else a polling client that says goodbye is left waiting for 45 s
        await self._turn()
        await super()._handle_eio_disconnect(eio_sid, reason)

    async def _send_packet(self, eio_sid: str, pkt: Any) -> None:
        self._live().connections.message()
        await super()._send_packet(eio_sid, pkt)

    async def _send_eio_packet(self, eio_sid: str, eio_pkt: Any) -> None:
        self._live().connections.message()
        transport = self.eio.sockets.get(eio_sid)
        if transport and transport.queue.qsize() >= _MOST_QUEUED and not transport.closing:
            logger.warning("A Socket.IO client reads nothing and is disconnected: %d messages wait", _MOST_QUEUED)
            await _close(transport)
        await super()._send_eio_packet(eio_sid, eio_pkt)


async def _close(transport: Any) -> None:
    await transport.close(wait=False)
    # The library would leave its websocket writer waiting for another packet; this is what ends it.
    transport.queue.put_nowait(None)
