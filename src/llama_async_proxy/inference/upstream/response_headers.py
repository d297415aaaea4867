"""Response heads (status line and headers) of engines, and a cache of them.

Engines repeat the same head, apart from its content length. A cached head is not parsed again.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from msgspec import Struct

Header = tuple[bytes, bytes]
HOP_BY_HOP = frozenset(
    (b"connection", b"keep-alive", b"proxy-connection", b"te", b"trailer", b"transfer-encoding", b"upgrade")
)
BLANK_LINE = b"\r\n\r\n"
_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*(\d{1,12})(?=\r\n)", re.IGNORECASE)
_LENGTH_DIGITS = 12
_CACHED_HEADS = 8
"""Different heads in the cache, most recent first. llama-server has one for JSON and one for text."""


def for_client(headers: Iterable[Header]) -> list[Header]:
    """The engine's headers for the client: without hop-by-hop headers, Server and CORS headers, which are the service's
    own to set."""
    return [
        (name, value)
        for name, value in headers
        if name not in HOP_BY_HOP and name != b"server" and not name.startswith(b"access-control-")
    ]


class ResponseHead(Struct):
    """Head of a response."""

    status: int
    headers: Sequence[Header]
    """Headers as the engine sent them, names in lower case; those of the final response, not of interim ones."""
    lines: bytes
    """Header lines for the client (see `for_client`), each with its line end, without those that frame the body."""
    length: int | None
    """Content length in bytes; None if the engine sent none."""
    is_chunked: bool
    is_stream: bool
    """The body is server-sent events."""

    @property
    def ends_with_connection(self) -> bool:
        """The body ends when the connection closes; nothing else marks its end."""
        return self.length is None and not self.is_chunked and self.status not in (204, 304)


class ResponseHeadCache:
    """The last few different heads of complete responses on connections that stayed open, and of streams."""

    def __init__(self) -> None:
        self._cached: list[tuple[bytes, bytes, ResponseHead]] = []
        """Bytes before the digits of the content length, bytes after them, and the parsed head."""
        self._streams: list[tuple[bytes, ResponseHead]] = []

    def lookup(self, data: bytes) -> tuple[ResponseHead, bytes] | None:
        """Head and body if `data` is exactly one whole response whose head is cached; else None."""
        for begin, rest, head in self._cached:
            if data.startswith(begin):
                end = data.find(b"\r", len(begin), len(begin) + _LENGTH_DIGITS + 1)
                digits = data[len(begin) : end]
                body_at = end + len(rest)
                if end >= 0 and data.startswith(rest, end) and digits.isdigit() and int(digits) == len(data) - body_at:
                    return head, data[body_at:]
        return None

    def store(self, data: bytes, head: ResponseHead) -> None:
        """Cache `head`, whose bytes `data` begins with. Only for a response that left its connection open. Heads with
        another status than 200, of streams, or without exactly one content length are not cached."""
        end = data.find(BLANK_LINE) + len(BLANK_LINE)
        lengths = list(_LENGTH.finditer(data, 0, end - 2))
        if head.status == 200 and not head.is_stream and len(lengths) == 1:
            begin, rest = data[: lengths[0].start(1)], data[lengths[0].end(1) : end]
            self._cached = [(begin, rest, head), *self._cached[: _CACHED_HEADS - 1]]

    def lookup_stream(self, data: bytes) -> tuple[ResponseHead, bytes] | None:
        """Head and the bytes after it if `data` begins with the cached head of a stream; else None."""
        for raw, head in self._streams:
            if data.startswith(raw):
                return head, data[len(raw) :]
        return None

    def store_stream(self, data: bytes, head: ResponseHead) -> None:
        """Cache the `head` of a stream, whose bytes `data` begins with. Heads after an interim response, or of other
        than chunked event streams with status 200, are not cached."""
        is_alone = data.startswith(b"HTTP/1.1 200")  # no interim answer before it
        if is_alone and head.is_stream and head.is_chunked and head.length is None:
            raw = data[: data.find(BLANK_LINE) + len(BLANK_LINE)]
            self._streams = [(raw, head), *self._streams[: _CACHED_HEADS - 1]]
