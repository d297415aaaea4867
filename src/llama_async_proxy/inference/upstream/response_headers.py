"""Heads of engines' answers. Once one has been read, the same head again, apart from its length, need not be read."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

Header = tuple[bytes, bytes]
HOP_BY_HOP = frozenset(
    (b"connection", b"keep-alive", b"proxy-connection", b"te", b"trailer", b"transfer-encoding", b"upgrade")
)
BLANK_LINE = b"\r\n\r\n"
_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*(\d{1,12})(?=\r\n)", re.IGNORECASE)
_LENGTH_DIGITS = 12
_CACHED_HEADS = 8
"""llama-server has one for JSON and one for text."""


def for_client(headers: Iterable[Header]) -> list[Header]:
    """The engine's headers without those of its own connection, its name and its CORS, which are ours to say."""
    return [
        (name, value)
        for name, value in headers
        if name not in HOP_BY_HOP and name != b"server" and not name.startswith(b"access-control-")
    ]


@dataclass(slots=True)
class ResponseHead:
    """Of an answer."""

    status: int
    headers: Sequence[Header]
    """As the engine sent them, names in lower case, of the last answer if there were interim ones."""
    lines: bytes
    """What of them is for the client, but for what frames the body."""
    length: int | None
    """Of the body, as the engine said."""
    is_chunked: bool
    is_stream: bool
    """The body is server-sent events."""

    @property
    def ends_with_connection(self) -> bool:
        """Only its end shows where the answer ends."""
        return self.length is None and not self.is_chunked and self.status not in (204, 304)


class ResponseHeadCache:
    """The last few different heads: of whole answers on connections that stayed open, and of streams."""

    def __init__(self) -> None:
        self._cached: list[tuple[bytes, bytes, ResponseHead]] = []
        """What comes before the digits of the length, what comes after them, and what it means."""
        self._streams: list[tuple[bytes, ResponseHead]] = []

    def lookup(self, data: bytes) -> tuple[ResponseHead, bytes] | None:
        """Head and body, when `data` is all of an answer whose head is known. Its length is that of the body then."""
        for begin, rest, head in self._cached:
            if data.startswith(begin):
                end = data.find(b"\r", len(begin), len(begin) + _LENGTH_DIGITS + 1)
                digits = data[len(begin) : end]
                body_at = end + len(rest)
                if end >= 0 and data.startswith(rest, end) and digits.isdigit() and int(digits) == len(data) - body_at:
                    return head, data[body_at:]
        return None

    def store(self, data: bytes, head: ResponseHead) -> None:
        """`data` begins with a head that was read as `head`, after which came the body and a connection to be kept."""
        end = data.find(BLANK_LINE) + len(BLANK_LINE)
        lengths = list(_LENGTH.finditer(data, 0, end - 2))
        if head.status == 200 and not head.is_stream and len(lengths) == 1:
            begin, rest = data[: lengths[0].start(1)], data[lengths[0].end(1) : end]
            self._cached = [(begin, rest, head), *self._cached[: _CACHED_HEADS - 1]]

    def lookup_stream(self, data: bytes) -> tuple[ResponseHead, bytes] | None:
        """Head and rest, when `data` begins with the known head of a stream."""
        for raw, head in self._streams:
            if data.startswith(raw):
                return head, data[len(raw) :]
        return None

    def store_stream(self, data: bytes, head: ResponseHead) -> None:
        """`data` begins with a head that was read as `head`."""
        is_alone = data.startswith(b"HTTP/1.1 200")  # no interim answer before it
        if is_alone and head.is_stream and head.is_chunked and head.length is None:
            raw = data[: data.find(BLANK_LINE) + len(BLANK_LINE)]
            self._streams = [(raw, head), *self._streams[: _CACHED_HEADS - 1]]
