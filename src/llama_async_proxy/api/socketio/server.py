"""The Socket.IO server behind both Engine.IO paths. Namespaces are attached to it by app.py."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Sequence
from typing import Any
from urllib.parse import parse_qs

import socketio
from engineio import packet as engine_packet
from engineio.payload import Payload
from socketio import packet
from starlette.responses import JSONResponse, Response
from starlette.types import Scope

from llama_async_proxy.api.socketio.emitter import Emitter
from llama_async_proxy.api.socketio.frames import WRITE_FRAME, FrameWriter, text_frame
from llama_async_proxy.api.socketio.incoming import (
    PACKET_SIZE,
    BoundedPacket,
    MessageCheck,
    PollingBody,
    StrictJson,
    hold_packet,
)
from llama_async_proxy.api.socketio.namespace import Namespace
from llama_async_proxy.monitor.connections import ConnectionMeter
from llama_async_proxy.operations.context import Context

logger = logging.getLogger(__name__)

_TRANSPORT_LIMIT = 8_000_000
"""Characters above which the transport closes without an answer, hence far above PAYLOAD_LIMIT."""
_PACKETS_PER_POLL = 5000
"""Packets in one request of a polling client, which sends everything that has piled up at once.

python-engineio 4 allows 16 (`Payload.max_decode_packets`) and drops the rest.
"""
_MOST_QUEUED = 10_000
"""Packets queued for a client that does not read; then it is disconnected. A first scan announces thousands."""
_METHODS = ("GET", "OPTIONS", "POST")
_UNKNOWN_SESSION = JSONResponse({"code": 1, "message": "The session has ended; connect again."}, 400)
_SLOW = 4
"""Packets queued for a client from which on it misses volatile events."""
_PING_INTERVAL_S = 25
_PING_TIMEOUT_S = 20


class SocketIoServer:
    """All namespaces behind one server. `context` is called when a client is there, so it may be built later."""

    def __init__(
        self,
        context: Callable[[], Context],
        namespaces: Sequence[type[Namespace]],
        *,
        meter: ConnectionMeter,
        accepts_origin: Callable[[Scope], bool],
    ) -> None:
        """`accepts_origin` tells whether a connection may come from the site that its headers name."""
        self.server = _AsyncServer(meter, accepts_origin)
        self._namespaces = [attached(context, Emitter(self.server, attached.name)) for attached in namespaces]
        for namespace in self._namespaces:
            self.server.attach(namespace)

    async def run(self) -> None:
        """Send events to the clients until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            for namespace in self._namespaces:
                tasks.create_task(namespace.run())

    async def close(self) -> None:
        """Close every connection at the transport, so that clients connect again by themselves.

        After a DISCONNECT packet of its namespace, socket.io-client 4 stays away (`socket.active` is false).
        """
        for namespace in self._namespaces:
            await namespace.announce_shutdown()
        await self.server.close_transports()


class _Manager(socketio.AsyncManager):  # type: ignore[misc]
    """Leaves rooms faster: each client is in two, the namespace's and its own.

    python-socketio 5 (`base_manager.py: basic_disconnect`) searches the rooms of all clients at each disconnect.
    """

    def basic_disconnect(self, sid: str, namespace: str, **_: object) -> None:
        for room in (None, sid):
            self.basic_leave_room(sid, namespace, room)
        self.callbacks.pop(sid, None)
        for pending in (self.pending_connect, self.pending_disconnect):
            if sid in (clients := pending.get(namespace, ())):
                clients.remove(sid)


class _AsyncServer(socketio.AsyncServer):  # type: ignore[misc]
    """AsyncServer that passes every event to its namespace, and says whether the client asked for an acknowledgement.

    python-socketio 5 tells handlers neither that nor about events without a handler, hence the overridden internals.
    The version range in pyproject.toml and the tests hold them in place.
    """

    def __init__(self, meter: ConnectionMeter, accepts_origin: Callable[[Scope], bool]) -> None:
        quiet = logging.getLogger(f"{__name__}.library")
        quiet.setLevel(logging.WARNING)  # below that level the libraries log every packet
        super().__init__(
            async_mode="asgi",
            client_manager=_Manager(),
            serializer=BoundedPacket,
            json=StrictJson,
            logger=quiet,
            engineio_logger=quiet,
            ping_interval=_PING_INTERVAL_S,
            ping_timeout=_PING_TIMEOUT_S,
            max_http_buffer_size=_TRANSPORT_LIMIT,
            cors_allowed_origins=lambda _, environ: accepts_origin(environ["asgi.scope"]),
            cors_credentials=False,
        )
        Payload.max_decode_packets = _PACKETS_PER_POLL
        self._meter = meter
        self._attached: dict[str, Namespace] = {}
        self._answering: set[asyncio.Task[Any]] = set()
        """Tasks that handle requests."""
        self._turns = asyncio.Lock()
        self._transports: dict[str, Any] = {}
        """Engine.IO session of each client."""
        self._writers: dict[str, FrameWriter] = {}
        """Frame writers of the clients on a websocket, by Engine.IO session."""

    def attach(self, namespace: Namespace) -> None:
        """Serve a namespace."""

        async def connected(client: str, _environ: object, _auth: object = None) -> None:
            self._transports[client] = self.eio.sockets.get(self.manager.eio_sid_from_sid(client, namespace.name))
            namespace.connected(client)

        async def disconnected(client: str, _reason: object = None) -> None:
            self._transports.pop(client, None)
            namespace.disconnected(client)

        self._attached[namespace.name] = namespace
        self.on("connect", connected, namespace=namespace.name)
        self.on("disconnect", disconnected, namespace=namespace.name)

    def backlog(self, client: str) -> int:
        """Number of packets queued for the client's transport."""
        transport = self._transports.get(client)
        return transport.queue.qsize() if transport else 0

    def emit_volatile(self, event: str, data: object, clients: Collection[str], namespace: str) -> None:
        """Send an event to those of `clients` that keep up: one frame, made once and written at once.

        The library's `emit` would make a task, a queue entry and a frame for each client.
        """
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
        self._meter.message(len(clients))

    async def close_transports(self) -> None:
        """Close all Engine.IO sessions and cancel the requests that still run."""
        for transport in tuple(self.eio.sockets.values()):
            await _close(transport)
        for task in self._answering:
            task.cancel()
        await asyncio.gather(*self._answering, return_exceptions=True)
        if self.eio.service_task_handle:  # the library can stop its own task only once, and only while it runs
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
        hold, payload = hold_packet(self.environ.get(eio_sid, {}).get("asgi.scope", {}), data)
        try:
            self._meter.message()
            # 0 is an id, too: it is a client's first.
            acknowledged = id is not None
            reply = await self._attached[namespace].answer(sid, data[0], payload, acknowledged=acknowledged)
            if acknowledged:
                ack = self.packet_class(packet.ACK, namespace=namespace, id=id, data=[reply])
                await self._send_packet(eio_sid, ack)
        finally:
            hold.release()
            self._answering.discard(task)

    async def _handle_eio_message(self, eio_sid: str, data: str | bytes) -> None:
        PACKET_SIZE.set(len(data))
        try:
            await super()._handle_eio_message(eio_sid, data)
        except Exception as exc:
            await self._disconnect_malformed(self.eio.sockets.get(eio_sid), exc)

    async def _disconnect_malformed(self, transport: Any, exc: Exception) -> None:
        """One line for each session: what it sent behind the first malformed packet is not read any more."""
        if transport is not None and not transport.closed:
            logger.warning("A Socket.IO client sent a malformed packet and is disconnected: %r", exc)
            await _close(transport)

    async def _handle_connect(self, eio_sid: str, namespace: str | None, data: object) -> None:
        name = namespace or "/"
        if name not in self._attached:
            known = ", ".join(sorted(self._attached))
            refusal = {"message": f"There is no namespace {name[:100]!r}. The namespaces are {known}."}
            await self._send_packet(eio_sid, self.packet_class(packet.CONNECT_ERROR, refusal, namespace=name))
        elif self.manager.sid_from_eio_sid(eio_sid, name) is None:  # a second one would leave the first behind
            await super()._handle_connect(eio_sid, namespace, data)

    async def _handle_event(self, eio_sid: str, namespace: str | None, id: int | None, data: Any) -> None:  # noqa: A002
        """Drop events of clients that are not connected to the namespace; the library logs each."""
        name = namespace or "/"
        if not isinstance(data, list) or not data:
            raise ValueError("an event without a name")
        if self.manager.is_connected(self.manager.sid_from_eio_sid(eio_sid, name), name):
            await super()._handle_event(eio_sid, namespace, id, data)

    async def _handle_ack(self, *_: object) -> None:
        """Drop acknowledgements: the service asks for none, and the library logs each."""

    async def handle_request(self, scope: Any, receive: Any, send: Any) -> Any:
        """Serve an ASGI connection. A polling session that moves to a websocket names itself in the query."""
        if scope["type"] == "websocket":
            await self._turn()
            for eio_sid in parse_qs(scope["query_string"].decode("latin-1")).get("sid", ()):
                self._remember_writer(eio_sid, scope)
            receive = MessageCheck(receive).receive
        elif scope["method"] not in _METHODS:
            headers = {"Allow": ", ".join(_METHODS)}
            return await Response("Only polling clients come here.", 405, headers)(scope, receive, send)
        elif self._is_closed(scope):
            return await _UNKNOWN_SESSION(scope, receive, send)
        elif scope["method"] == "POST":
            body = await PollingBody(_TRANSPORT_LIMIT).read(scope, receive, send)
            if body is None:
                return None
            receive = body
        return await super().handle_request(scope, receive, send)

    def _is_closed(self, scope: Any) -> bool:
        """True for a session that has ended; the library would fail on its requests."""
        sessions = parse_qs(scope["query_string"].decode("latin-1")).get("sid", ())
        found = [self.eio.sockets.get(eio_sid) for eio_sid in sessions]
        return any(transport is not None and transport.closed for transport in found)

    async def _turn(self) -> None:
        """Let one client come or go in each round of the event loop, so that thousands do not hold up the others."""
        async with self._turns:
            await asyncio.sleep(0)

    def _remember_writer(self, eio_sid: str, scope: Any) -> None:
        writer = scope.get("extensions", {}).get(WRITE_FRAME)
        if writer is not None and (eio_sid in self.eio.sockets):
            self._writers[eio_sid] = writer

    async def _handle_eio_connect(self, eio_sid: str, environ: dict[str, Any]) -> Any:
        self._meter.connected(eio_sid)
        self._remember_writer(eio_sid, environ["asgi.scope"])
        return await super()._handle_eio_connect(eio_sid, environ)

    async def _handle_eio_disconnect(self, eio_sid: str, reason: str) -> None:
        self._meter.disconnected(eio_sid)
        self._writers.pop(eio_sid, None)
        transport = self.eio.sockets.get(eio_sid)
        if transport and reason == self.reason.CLIENT_DISCONNECT:
            # Without it, the open poll of a client that disconnects is answered at its next ping, up to 45 s later.
            transport.queue.put_nowait(None)
        await self._turn()
        await super()._handle_eio_disconnect(eio_sid, reason)

    async def _send_packet(self, eio_sid: str, pkt: Any) -> None:
        self._meter.message()
        await super()._send_packet(eio_sid, pkt)

    async def _send_eio_packet(self, eio_sid: str, eio_pkt: Any) -> None:
        self._meter.message()
        transport = self.eio.sockets.get(eio_sid)
        if transport and transport.queue.qsize() >= _MOST_QUEUED and not transport.closing:
            logger.warning("A Socket.IO client does not read and is disconnected: %d packets wait", _MOST_QUEUED)
            await _close(transport)
        await super()._send_eio_packet(eio_sid, eio_pkt)


async def _close(transport: Any) -> None:
    await transport.close(wait=False)
    # python-engineio's websocket writer waits for another packet after the close; None ends it.
    transport.queue.put_nowait(None)
