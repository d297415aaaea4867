"""Heads of requests that can go the short way. Once one has been read and judged, the same head again, apart from its
length, need not be: clients send hardly any other, on one connection after another."""

from __future__ import annotations

import re
from typing import NamedTuple

from llama_async_proxy.inference.fast_path import RequestHead
from llama_async_proxy.inference.requests import routes
from llama_async_proxy.inference.upstream.response_headers import Header
from llama_async_proxy.settings import Settings

Server = tuple[str, int | None] | None
"""Our end of a connection: which names of ours are good depends on it."""

_MAX_BODY = 1 << 20
"""Larger bodies take the long way: what a passage saves is nothing beside them."""
_LENGTH_DIGITS = 7
_HEAD = re.compile(
    rb"(?P<method>POST|GET) (?P<path>/[!-&(->@-~]*)(?:\?(?P<query>[!-~]*))? HTTP/1\.1\r\n"
    rb"(?P<fields>(?:[!#$%&'*+.^_`|~0-9A-Za-z-]+:[^\x00-\x08\x0a-\x1f\x7f]*\r\n)+)\r\n"
)
"""Linear in time: no part of it can match where its neighbour does."""
_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*(\d+)[ \t]*\r\n", re.IGNORECASE)
_FOR_UVICORN = frozenset((b"transfer-encoding", b"upgrade", b"expect", b"trailer"))
_PERSISTENCE = (b"keep-alive", b"close")
_CACHED_HEADS = 8


class ParsedRequestHead(NamedTuple):
    head: RequestHead
    length: int
    """Of the body."""
    closes: bool


class CachedRequestHead:
    """One that was harmless under `settings`, on a connection to `server`."""

    __slots__ = ("_after", "_before", "_digits_at", "closes", "head", "server", "settings")

    def __init__(self, data: bytes, end: int, parsed: ParsedRequestHead, settings: Settings, server: Server) -> None:
        """`parsed` is what `data` begins with, up to `end`."""
        self.head, self.closes = parsed.head, parsed.closes
        self.settings, self.server = settings, server
        length = _LENGTH.search(data, 0, end)
        self._before, self._after = (data[:end], b"") if length is None else _split_at_length(length, data, end)
        self._digits_at = len(self._before)

    def lengths(self, data: bytes) -> tuple[int, int] | None:
        """Lengths of head and body, if `data` begins with this head."""
        if not data.startswith(self._before):
            return None
        if not self._after:
            return self._digits_at, 0
        end = data.find(b"\r", self._digits_at, self._digits_at + _LENGTH_DIGITS + 1)
        digits = data[self._digits_at : end]
        if end < 0 or not data.startswith(self._after, end) or not digits.isdigit() or int(digits) > _MAX_BODY:
            return None
        return end + len(self._after), int(digits)


def _split_at_length(match: re.Match[bytes], data: bytes, end: int) -> tuple[bytes, bytes]:
    return data[: match.start(1)], data[match.end(1) : end]


class RequestHeadCache:
    """The last few different ones of all connections."""

    def __init__(self) -> None:
        self._cached: list[CachedRequestHead] = []

    def lookup(
        self, data: bytes, settings: Settings, server: Server
    ) -> tuple[CachedRequestHead, tuple[int, int]] | None:
        """What `data` begins with, and the lengths of head and body."""
        for cached in self._cached:
            if cached.settings is settings and cached.server == server and (lengths := cached.lengths(data)):
                return cached, lengths
        return None

    def store(
        self, data: bytes, end: int, parsed: ParsedRequestHead, settings: Settings, server: Server
    ) -> CachedRequestHead:
        """As of `CachedRequestHead`, which it returns."""
        cached = CachedRequestHead(data, end, parsed, settings, server)
        self._cached = [cached, *self._cached[: _CACHED_HEADS - 1]]
        return cached


def parse(data: bytes) -> ParsedRequestHead | None:
    """A head the short way understands; None for any other."""
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
