"""The little of server-sent events that a proxy must know which passes bytes on. Pure."""

from __future__ import annotations

from collections.abc import Iterable

CONTENT_TYPE = b"text/event-stream"
COMMENT_LOADING = b": loading\n\n"
"""Comment that clients ignore; it keeps a silent connection from being cut."""


def is_event_stream(headers: Iterable[tuple[bytes, bytes]]) -> bool:
    return any(name == b"content-type" and value.startswith(CONTENT_TYPE) for name, value in headers)
