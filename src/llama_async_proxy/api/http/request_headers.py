"""Request heads (request line and headers) that the fast path understands, and a cache of them.

Clients repeat the same head, apart from its content length, on one connection after another. A cached head is neither
parsed nor checked for access again.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from llama_async_proxy.inference.requests import routes
from llama_async_proxy.inference.requests.forwarding import RequestHead
from llama_async_proxy.inference.upstream.response_headers import Header
from llama_async_proxy.settings import Settings

Server = tuple[str, int | None] | None
"""Local address of a connection: (host, port). The Host names that are allowed depend on it."""

_MAX_BODY = 1 << 20
"""Bytes. Larger bodies take the slow path: beside the time they take, the fast path saves nothing."""
_LENGTH_DIGITS = 7
_HEAD = re.compile(
    rb"(?P<method>POST|GET) (?P<path>/[!-&(->@-~]*)(?:\?(?P<query>[!-~]*))? HTTP/1\.1\r\n"
    rb"(?P<fields>(?:[!#$%&'*+.^_`|~0-9A-Za-z-]+:[^\x00-\x08\x0a-\x1f\x7f]*\r\n)+)\r\n"
)
"""One canonical HTTP/1.1 head. Matching takes linear time: no part can match where its neighbour does."""
_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*(\d+)[ \t]*\r\n", re.IGNORECASE)
_FOR_UVICORN = frozenset((b"transfer-encoding", b"upgrade", b"expect", b"trailer", b"content-encoding"))
_PERSISTENCE = (b"keep-alive", b"close")
_CACHED_HEADS = 8
"""Different heads in the cache, most recent first."""


class ParsedRequestHead(NamedTuple):
    head: RequestHead
    length: int
    """Bytes of the body."""
    closes: bool
    """The client asks for the connection to be closed after the response."""


class CachedRequestHead:
    """A request head that passed the access check under `settings`, on a connection to `server`."""

    __slots__ = ("_after", "_before", "_digits_at", "closes", "head", "server", "settings")

    def __init__(self, raw: bytes, parsed: ParsedRequestHead, settings: Settings, server: Server) -> None:
        """`raw` are the bytes of the head, blank line included; `parsed` is their meaning."""
        self.head, self.closes = parsed.head, parsed.closes
        self.settings, self.server = settings, server
        length = _LENGTH.search(raw)
        self._before, self._after = (raw, b"") if length is None else (raw[: length.start(1)], raw[length.end(1) :])
        self._digits_at = len(self._before)

    def lengths(self, data: bytes) -> tuple[int, int] | None:
        """Bytes of head and body if `data` begins with this head, whatever its content length; else None."""
        if not data.startswith(self._before):
            return None
        if not self._after:
            return self._digits_at, 0
        end = data.find(b"\r", self._digits_at, self._digits_at + _LENGTH_DIGITS + 1)
        digits = data[self._digits_at : end]
        if end < 0 or not data.startswith(self._after, end) or not digits.isdigit() or int(digits) > _MAX_BODY:
            return None
        return end + len(self._after), int(digits)


class RequestHeadCache:
    """The last few different request heads of all connections."""

    def __init__(self) -> None:
        self._cached: list[CachedRequestHead] = []

    def lookup(
        self, data: bytes, settings: Settings, server: Server
    ) -> tuple[CachedRequestHead, tuple[int, int]] | None:
        """The cached head that `data` begins with, and the bytes of head and body; None for a miss."""
        for cached in self._cached:
            if cached.settings is settings and cached.server == server and (lengths := cached.lengths(data)):
                return cached, lengths
        return None

    def store(self, raw: bytes, parsed: ParsedRequestHead, settings: Settings, server: Server) -> CachedRequestHead:
        """Add a head (arguments as for `CachedRequestHead`) in place of the oldest; returns the cached form."""
        cached = CachedRequestHead(raw, parsed, settings, server)
        self._cached = [cached, *self._cached[: _CACHED_HEADS - 1]]
        return cached


def parse(data: bytes) -> ParsedRequestHead | None:
    """The meaning of a head that the fast path understands; None for any other head."""
    match = _HEAD.fullmatch(data)
    if match is None:
        return None
    method, query = match["method"].decode(), match["query"] or b""
    route = routes.find(method, match["path"].decode())
    if route is None or (method == "GET" and routes.model_in_query(query) is None):
        return None
    headers: list[Header] = []
    length: bytes | None = None
    closes = False
    for line in match["fields"].split(b"\r\n")[:-1]:
        name, _, value = line.partition(b":")
        name, value = name.lower(), value.strip(b" \t")
        headers.append((name, value))
        if name in _FOR_UVICORN:
            return None
        if name == b"content-length":
            if length is not None or not value.isdigit() or len(value) > _LENGTH_DIGITS or int(value) > _MAX_BODY:
                return None
            length = value
        elif name == b"connection":
            if value.lower() not in _PERSISTENCE:
                return None
            closes = closes or value.lower() == b"close"
    if (length is None) is (method == "POST"):
        return None
    return ParsedRequestHead(RequestHead(route, method, query, headers), int(length or 0), closes)
