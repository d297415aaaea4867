"""The websocket protocol, with a way to write a frame that was made once for many clients."""

from __future__ import annotations

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from llama_async_proxy.api.socketio.frames import WRITE_FRAME

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
