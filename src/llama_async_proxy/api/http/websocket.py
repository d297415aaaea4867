"""The websocket protocol, with a way to write a frame that was made once for many clients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeAlias

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

FrameWriter: TypeAlias = Callable[[bytes], bool]
"""Writes a frame at once, or not at all where the client is slow; whether it did."""

WRITE_FRAME: Final = "llama_async_proxy.write_frame"
"""Key of the FrameWriter in the ASGI scope's extensions."""

_MOST_UNSENT = 16 * 1024
"""Bytes that may still wait for the network."""


class WebSocketProtocol(WebSocketsSansIOProtocol):
    async def run_asgi(self) -> None:
        extensions: dict[str, object] = self.scope["extensions"]  # type: ignore[assignment]
        extensions[WRITE_FRAME] = self._write_frame
        await super().run_asgi()

    def _write_frame(self, frame: bytes) -> bool:
        # Messages are never sent in fragments nor compressed here, so a frame fits between any two others.
        ready = self.handshake_complete and not self.close_sent and not self.transport.is_closing()
        if not ready or self.transport.get_write_buffer_size() > _MOST_UNSENT:
            return False
        self.transport.write(frame)
        return True


def text_frame(text: str) -> bytes:
    """A whole text message from a server, RFC 6455: final, unmasked."""
    payload = text.encode()
    length = len(payload)
    if length < 126:
        return b"\x81%c%b" % (length, payload)
    if length < 1 << 16:
        return b"\x81\x7e%b%b" % (length.to_bytes(2, "big"), payload)
    return b"\x81\x7f%b%b" % (length.to_bytes(8, "big"), payload)
