"""Messages of Socket.IO as they come in: strict JSON, and bounds of size, time and memory.

A payload that cannot be read is answered; a message that the libraries could not take apart ends its session, with one
line in the log.
"""

from __future__ import annotations

import json
import logging
import re
from contextvars import ContextVar
from typing import Any
from urllib.parse import parse_qs

import msgspec
from socketio import packet
from starlette.responses import JSONResponse
from starlette.types import Message, Receive, Scope, Send

from llama_async_proxy.api.body import MAX_DEPTH, is_too_deep, read_body
from llama_async_proxy.api.decode import check_json
from llama_async_proxy.api.memory import MemoryHold, hold_of
from llama_async_proxy.api.socketio.emitter import TOO_LARGE, Unreadable
from llama_async_proxy.errors import InvalidInput, Overloaded, ServiceError

logger = logging.getLogger(__name__)

PAYLOAD_LIMIT = 1_000_000
"""Characters of one packet, or bytes of its attachments; a larger one is answered with an error, not read."""
PACKET_SIZE: ContextVar[int] = ContextVar("size of the packet that is being handled", default=0)
_PACKET_TYPES = "0123456b"
_SEPARATOR = "\x1e"
_EVENT_NAME = re.compile(r'\[\s*("(?:[^"\\]|\\.){1,200}")')


class StrictJson:
    """JSON for the Socket.IO libraries: NaN and infinities are neither read nor written."""

    @staticmethod
    def loads(text: str | bytes) -> Any:
        """Raises ValueError for all that is not JSON, or too deep to be read."""
        encoded = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
        if is_too_deep(encoded):
            raise ValueError(f"is nested more than {MAX_DEPTH} levels deep")
        try:
            return msgspec.json.decode(encoded)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
            raise ValueError(f"is not valid JSON: {exc}") from exc

    @staticmethod
    def dumps(value: object, **_: object) -> str:
        """NaN and infinities become null."""
        return msgspec.json.encode(value).decode()


class BoundedPacket(packet.Packet):  # type: ignore[misc]
    """A packet whose payload, when it cannot be read or is too large, is replaced by what to tell its sender.

    Attachments beyond the limit are dropped as they come: an event may announce thousands of them.
    """

    data: Any

    def decode(self, encoded_packet: str) -> int:
        try:
            announced: int = super().decode(encoded_packet)
        except ValueError as exc:
            kind = encoded_packet[:1]
            self.data = [_event_of(encoded_packet, kind), _why(encoded_packet, exc)]
            self.packet_type = packet.EVENT
            return 0
        is_event = self.packet_type in (packet.EVENT, packet.BINARY_EVENT) and isinstance(self.data, list)
        if len(encoded_packet) > PAYLOAD_LIMIT and is_event:
            self.data = [*self.data[:1], TOO_LARGE]
        self._missing = announced
        self._attached_bytes = 0
        return announced

    def add_attachment(self, attachment: bytes) -> bool:
        """True when it was the last one. Raises ValueError for text in its place."""
        if not isinstance(attachment, bytes | bytearray):
            raise ValueError("text came where an attachment was announced")  # noqa: TRY004 - the library's own kind
        self._missing -= 1
        self._attached_bytes += len(attachment)
        if self._attached_bytes <= PAYLOAD_LIMIT:
            self.attachments.append(attachment)
        else:
            self.attachments.clear()
        if self._missing > 0:
            return False
        if self._attached_bytes > PAYLOAD_LIMIT:
            self.data = [*self.data[:1], TOO_LARGE]
        else:
            self.data = self.reconstruct_binary(self.data, self.attachments)
        return True


def _event_of(encoded: str, kind: str) -> str:
    """The event's name in a packet that cannot be read. Raises ValueError where there is none."""
    found = _EVENT_NAME.search(encoded) if kind in (str(packet.EVENT), str(packet.BINARY_EVENT)) else None
    if found is None:
        raise ValueError("no event's name can be read")
    return str(json.loads(found[1]))


def _why(encoded: str, exc: ValueError) -> Unreadable:
    text = encoded[encoded.index("[") :]
    try:
        check_json(text)
    except InvalidInput as error:
        field = re.sub(r"^\[1\]\.?", "", error.field) or "payload"
        return Unreadable(field, error.message.removeprefix(f"{error.field}: "), _request_id(text))
    return Unreadable("payload", str(exc))


def _request_id(text: str) -> str | int | None:
    payload = json.loads(text)[1]
    given = payload.get("requestId") if isinstance(payload, dict) else None
    return given if isinstance(given, str | int) else None


def hold_packet(scope: Scope, data: list[Any]) -> tuple[MemoryHold, object]:
    """A share of the memory of all requests for an event's packet, and its payload; `scope` is that of its session."""
    hold = hold_of(scope).another()
    try:
        hold.take(PACKET_SIZE.get())
    except Overloaded as error:
        return hold, Unreadable("", error.message)
    return hold, data[1] if len(data) > 1 else None


class MessageCheck:
    """The messages of a websocket; it ends at the first that is no packet, where the library would fail."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive

    async def receive(self) -> Message:
        message = await self._receive()
        text = message.get("text")
        if message["type"] == "websocket.receive" and text is not None and text[:1] not in _PACKET_TYPES[:7]:
            logger.warning("A Socket.IO client sent what is no packet and is disconnected: %.40r", text)
            return {"type": "websocket.disconnect", "code": 1003}
        if message["type"] == "websocket.receive" and text == "":
            logger.warning("A Socket.IO client sent an empty packet and is disconnected")
            return {"type": "websocket.disconnect", "code": 1003}
        return message


class PollingBody:
    """The body of a polling client's POST, read whole."""

    def __init__(self, limit: int) -> None:
        """`limit` in bytes."""
        self._limit = limit

    async def read(self, scope: Scope, receive: Receive, send: Send) -> Receive | None:
        """A `receive` that gives the body; None when it was refused, which has been answered, or the client left."""
        try:
            body = await read_body(scope, receive, self._limit)
            if body is None:
                return None
            _check_packets(body)
        except ServiceError as error:
            logger.info("A packet of a polling client is refused: %s", error.message)
            answer = JSONResponse({"code": 3, "message": error.message}, error.status)
            await answer(scope, receive, send)
            return None
        messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]
        # The library trusts this header, which counts the body as it was sent.
        others = [header for header in scope["headers"] if header[0] != b"content-length"]
        scope["headers"] = [*others, (b"content-length", b"%d" % len(body))]

        async def replay() -> Message:
            return messages.pop() if messages else await receive()

        return replay


def _check_packets(body: bytes) -> None:
    """Raises InvalidInput for what python-engineio cannot take apart."""
    try:
        text = body.decode()
    except UnicodeDecodeError as exc:
        raise InvalidInput("body", f"is not UTF-8: {exc.reason}") from None
    if text.startswith("d="):
        text = parse_qs(text).get("d", [""])[0]
    if any(part[:1] not in _PACKET_TYPES or not part for part in text.split(_SEPARATOR)):
        raise InvalidInput("body", "holds what is no packet of Engine.IO")
