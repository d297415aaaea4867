"""Server-sent events, as far as a proxy that passes bytes on needs to know them. Pure."""

from __future__ import annotations

from collections.abc import Iterable

CONTENT_TYPE = b"text/event-stream"
COMMENT_LOADING = b": loading\n\n"
"""A line no client shows; it tells the connection is alive."""


def is_event_stream(headers: Iterable[tuple[bytes, bytes]]) -> bool:
    return any(name == b"content-type" and value.startswith(CONTENT_TYPE) for name, value in headers)


def closing(last_bytes: bytes) -> bytes:
    """What ends a broken-off event, so that the next one stands alone: nothing when `last_bytes` ended one."""
    return b"" if not last_bytes or last_bytes.endswith((b"\n\n", b"\r\n\r\n")) else b"\n\n"
