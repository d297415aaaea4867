"""The little of server-sent events that a proxy must know which passes bytes on. Pure.

Events are cut and read as https://html.spec.whatwg.org/multipage/server-sent-events.html#event-stream-interpretation
says, whatever an engine makes of its lines and characters.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from llama_async_proxy.errors import UpstreamFailed

CONTENT_TYPE = b"text/event-stream"
COMMENT_LOADING = b": loading\n\n"
"""Comment that clients ignore; it keeps a silent connection from being cut."""
MAX_EVENT_BYTES = 16 << 20
"""Longest event that is read. A longer one ends its request, so that no engine can fill the memory."""
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


def is_event_stream(headers: Iterable[tuple[bytes, bytes]]) -> bool:
    return any(name == b"content-type" and value.startswith(CONTENT_TYPE) for name, value in headers)


class StreamEvent(NamedTuple):
    """One event that has data."""

    name: bytes
    """Empty when the event has none."""
    data: bytes
    """Valid UTF-8; lines are joined by a line feed."""


class EventReader:
    """Events of one stream, however its bytes are cut into chunks. Each byte is looked at a fixed number of times."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        """Beginning of an event whose end has not come."""
        self._size = 0
        self._is_first = True
        self._drops_line_feed = False
        """The last byte was a carriage return, with which a line feed makes one line end."""

    def feed(self, data: bytes) -> list[StreamEvent]:
        """Events that `data` completes. Raises UpstreamFailed for an event of more than MAX_EVENT_BYTES."""
        if self._is_first or self._drops_line_feed or b"\r" in data:
            data = self._normalized(data)
        ends = b"\n\n" in data or (data.startswith(b"\n") and bool(self._pieces) and self._pieces[-1].endswith(b"\n"))
        if ends:
            *blocks, rest = b"".join((*self._pieces, data)).split(b"\n\n")
            self._pieces, self._size = [], 0
        else:
            blocks, rest = [], data
        if rest:
            self._pieces.append(rest)
            self._size += len(rest)
        if self._size > MAX_EVENT_BYTES or any(len(block) > MAX_EVENT_BYTES for block in blocks):
            limit = MAX_EVENT_BYTES >> 20
            raise UpstreamFailed(f"The model's process sent an event of more than {limit} MiB, which is not read.")
        return [event for block in blocks if (event := _event(block)) is not None]

    def rest(self) -> list[StreamEvent]:
        """The event that the end of the stream completes, if there is one. Nothing can be fed afterwards."""
        event = _event(b"".join(self._pieces))
        self._pieces = []
        return [] if event is None else [event]

    def _normalized(self, data: bytes) -> bytes:
        """`data` with line feeds only, and without a mark of the byte order."""
        if self._drops_line_feed:
            data = data.removeprefix(b"\n")
        if data:
            if self._is_first:
                data = data.removeprefix(_BYTE_ORDER_MARK)
            self._is_first = False
            self._drops_line_feed = data.endswith(b"\r")
        return data.replace(b"\r\n", b"\n").replace(b"\r", b"\n") if b"\r" in data else data


def _event(block: bytes) -> StreamEvent | None:
    """The event that some lines make; None without data."""
    if block.startswith(b"data: ") and b"\n" not in block:
        return StreamEvent(b"", _utf8(block[6:]))
    name, lines = b"", []
    for line in block.split(b"\n"):
        field, _, value = line.partition(b":")
        if field == b"data":
            lines.append(value.removeprefix(b" "))
        elif field == b"event":
            name = value.removeprefix(b" ")
    return StreamEvent(name, _utf8(b"\n".join(lines))) if lines else None


def _utf8(data: bytes) -> bytes:
    """`data` with a replacement character for each part that is not UTF-8."""
    if data.isascii():
        return data
    try:
        data.decode()
    except UnicodeDecodeError:
        return data.decode(errors="replace").encode()
    return data
