"""Reading the body of a request, for every way in: limits of size, time, memory and nesting, and compressed bodies."""

from __future__ import annotations

import asyncio
import itertools
import zlib
from collections.abc import Iterable

from starlette.types import Receive, Scope

from llama_async_proxy.api.memory import MemoryHold, hold_of
from llama_async_proxy.errors import InvalidInput, RequestTimeout, TooLarge

SILENCE_S = 30.0
"""Longest pause of a client in the middle of its request's body."""
DEADLINE_S = 60.0
"""For a whole body, and a second more for each DEADLINE_BYTES of it."""
DEADLINE_BYTES = 64 * 1024
MAX_DEPTH = 256
"""Levels of arrays and objects in JSON. Parsers recurse, and every Python has another limit at which they fail."""
CODINGS = ("gzip", "deflate")
"""Content codings that are taken."""
_MAX_CODINGS = 2
_INFLATED_AT_A_TIME = 1 << 20
"""Bytes after which other requests have a turn."""
_GZIP_OR_ZLIB = 32 + zlib.MAX_WBITS
_STEP = {ord("["): 1, ord("{"): 1, ord("]"): -1, ord("}"): -1}
_NOT_BRACKETS = bytes(code for code in range(256) if code not in _STEP)


class UnsupportedCoding(InvalidInput):
    status = 415


async def read_body(scope: Scope, receive: Receive, limit: int, limited_by: str = "") -> bytes | None:
    """The whole body, decoded; None when the client left while sending it.

    `limit` is in bytes, `limited_by` names the setting it comes from. Raises TooLarge before keeping what is too much,
    RequestTimeout, Overloaded when memory is short, UnsupportedCoding, and InvalidInput for JSON that is nested too
    deeply or a body that is not what its Content-Encoding says.
    """
    codings = _codings(scope["headers"])
    hold = hold_of(scope)
    body = await _receive_all(scope, receive, _Limit(limit, limited_by), hold)
    if body is None:
        return None
    for coding in reversed(codings):
        body = await _Inflater(_Limit(limit, limited_by), hold).inflate(body, coding)
    if _may_be_json(scope["headers"]) and is_too_deep(body):
        raise InvalidInput("body", f"is nested more than {MAX_DEPTH} levels deep")
    return body


class _Limit:
    def __init__(self, size: int, limited_by: str) -> None:
        self.size = size
        self._why = f", the limit set by {limited_by}" if limited_by else ""

    def exceeded(self) -> TooLarge:
        return TooLarge("body", f"must not be larger than {_readable(self.size)}{self._why}")


def _readable(size: int) -> str:
    return f"{size >> 20} MiB" if size >= 1 << 20 else f"{size >> 10} KiB"


async def _receive_all(scope: Scope, receive: Receive, limit: _Limit, hold: MemoryHold) -> bytes | None:
    declared = next((value for name, value in scope["headers"] if name == b"content-length"), b"")
    if declared.isdigit() and int(declared) > limit.size:
        raise limit.exceeded()
    loop = asyncio.get_running_loop()
    deadline_s = loop.time() + DEADLINE_S
    parts: list[bytes] = []
    size = 0
    while True:
        try:
            async with asyncio.timeout_at(min(loop.time() + SILENCE_S, deadline_s + size / DEADLINE_BYTES)):
                message = await receive()
        except TimeoutError:
            raise RequestTimeout(
                f"The request's body did not arrive in time: it may pause for {SILENCE_S:g} s, and take "
                f"{DEADLINE_S:g} s and a second more for each {DEADLINE_BYTES >> 10} KiB."
            ) from None
        if message["type"] == "http.disconnect":
            return None
        part: bytes = message.get("body", b"")
        size += len(part)
        if size > limit.size:
            raise limit.exceeded()
        hold.take(len(part))
        parts.append(part)
        if not message.get("more_body", False):
            return parts[0] if len(parts) == 1 else b"".join(parts)


# --- compression ------------------------------------------------------------------------------------------------------


def _codings(headers: Iterable[tuple[bytes, bytes]]) -> list[str]:
    """The body's content codings in the order they were applied. Raises UnsupportedCoding."""
    text = ",".join(value.decode("latin-1") for name, value in headers if name == b"content-encoding")
    codings = [coding.strip().lower().removeprefix("x-") for coding in text.split(",")]
    codings = [coding for coding in codings if coding not in ("", "identity")]
    unknown = next((coding for coding in codings if coding not in CODINGS), None)
    if unknown is not None:
        raise UnsupportedCoding(
            "Content-Encoding", f"must be {' or '.join(CODINGS)}, or left out, not {unknown[:40]!r}"
        )
    if len(codings) > _MAX_CODINGS:
        raise UnsupportedCoding("Content-Encoding", f"must not name more than {_MAX_CODINGS} codings")
    return codings


class _Inflater:
    """Decompresses within a limit and the memory there is, with turns for other requests in between."""

    def __init__(self, limit: _Limit, hold: MemoryHold) -> None:
        self._limit = limit
        self._hold = hold
        self._inflated = bytearray()

    async def inflate(self, body: bytes, coding: str) -> bytes:
        """Raises TooLarge, Overloaded, and InvalidInput for what is not in this coding."""
        try:
            # RFC 9110, 8.4.1.2: "deflate" is the zlib format, but some clients send the bare stream.
            for wbits in (_GZIP_OR_ZLIB, -zlib.MAX_WBITS):
                try:
                    await self._inflate_members(body, wbits)
                    break
                except zlib.error:
                    if coding != "deflate" or self._inflated or wbits < 0:
                        raise
        except zlib.error as exc:
            raise InvalidInput("body", f"is not {coding}, which its Content-Encoding says it is: {exc}") from None
        return bytes(self._inflated)

    async def _inflate_members(self, body: bytes, wbits: int) -> None:
        """Inflate one stream after the other; a gzip file may consist of several (RFC 1952, 2.2)."""
        rest = body
        while rest:
            stream = zlib.decompressobj(wbits)
            while not stream.eof:
                room = self._limit.size - len(self._inflated) + 1
                part = stream.decompress(rest, min(_INFLATED_AT_A_TIME, room))
                rest = stream.unconsumed_tail
                self._hold.take(len(part))
                self._inflated += part
                if len(self._inflated) > self._limit.size:
                    raise self._limit.exceeded()
                if not part and not rest and not stream.eof:
                    raise zlib.error("it ends too early")
                await asyncio.sleep(0)
            rest = stream.unused_data


# --- nesting ----------------------------------------------------------------------------------------------------------


def _may_be_json(headers: Iterable[tuple[bytes, bytes]]) -> bool:
    media_type = next((value for name, value in headers if name == b"content-type"), b"")
    return not media_type.lower().startswith(b"multipart/")


def is_too_deep(body: bytes) -> bool:
    """True for JSON nested more than MAX_DEPTH levels deep; for other bytes the answer means nothing."""
    if body.count(b"[") + body.count(b"{") <= MAX_DEPTH:
        return False
    outside_strings = b"".join(body.replace(b"\\\\", b"").replace(b'\\"', b"").split(b'"')[::2])
    brackets = outside_strings.translate(None, _NOT_BRACKETS)
    depths = itertools.accumulate(map(_STEP.__getitem__, brackets))
    return any(depth > MAX_DEPTH for depth in depths)
