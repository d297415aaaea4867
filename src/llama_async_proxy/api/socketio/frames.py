"""Websocket frames that are made once and written to many clients.

The HTTP server's websocket protocol offers to write a frame by an extension of the ASGI scope.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeAlias

FrameWriter: TypeAlias = Callable[[bytes], bool]
"""Writes a frame at once; returns False, and writes nothing, where the client is slow."""

WRITE_FRAME: Final = "llama_async_proxy.write_frame"
"""Key of the FrameWriter in the ASGI scope's extensions."""


def text_frame(text: str) -> bytes:
    """A whole text message from a server, RFC 6455: final, unmasked."""
    payload = text.encode()
    length = len(payload)
    if length < 126:
        return b"\x81%c%b" % (length, payload)
    if length < 1 << 16:
        return b"\x81\x7e%b%b" % (length.to_bytes(2, "big"), payload)
    return b"\x81\x7f%b%b" % (length.to_bytes(8, "big"), payload)
