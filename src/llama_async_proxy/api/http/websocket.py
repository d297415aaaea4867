"""The websocket protocol, with a way to write a frame that was made once for many clients."""

from __future__ import annotations

from starlette.types import Scope, Send
from uvicorn._types import ASGISendEvent
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from llama_async_proxy.api.http.access import answer_with_error
from llama_async_proxy.api.http.errors import error_body
from llama_async_proxy.api.socketio.frames import WRITE_FRAME
from llama_async_proxy.errors import UpgradeRequired
from llama_async_proxy.inference.requests.error_formats import error_body as formatted
from llama_async_proxy.inference.requests.error_formats import format_of

_MOST_UNSENT = 16 * 1024
"""Bytes that may still wait for the network."""


_BAD_HANDSHAKE = (
    b"HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain\r\ncontent-length: 34\r\nconnection: close\r\n\r\n"
    b"The handshake cannot be understood"
)


class WebSocketProtocol(WebSocketsSansIOProtocol):
    async def run_asgi(self) -> None:
        extensions: dict[str, object] = self.scope["extensions"]  # type: ignore[assignment]
        extensions[WRITE_FRAME] = self._write_frame
        await super().run_asgi()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.conn.handshake_exc is not None and not self.handshake_initiated and not self.close_sent:
            # The library cannot read the handshake. uvicorn 0.54 would leave the connection open, and fail at shutdown.
            self.handshake_complete = self.close_sent = True
            self.transport.write(_BAD_HANDSHAKE)
            self.transport.close()

    async def send(self, message: ASGISendEvent) -> None:
        await super().send(message)
        if message["type"] == "websocket.http.response.body" and not message.get("more_body", False):
            self.handshake_complete = True  # else uvicorn logs each refusal as an error of the application

    def _write_frame(self, frame: bytes) -> bool:
        # Messages are never sent in fragments nor compressed here, so a frame fits between any two others.
        ready = self.handshake_complete and not self.close_sent and not self.transport.is_closing()
        if not ready or self.transport.get_write_buffer_size() > _MOST_UNSENT:
            return False
        self.transport.write(frame)
        return True


async def refuse_websocket(scope: Scope, send: Send) -> None:
    """Answer a handshake where there is no websocket with 426 and a sentence, in the path's own error format."""
    path = scope["path"]
    refusal = UpgradeRequired(path)
    body = error_body(refusal) if path.startswith("/api/") else formatted(format_of(path), refusal)
    # RFC 9110, 15.5.22: the answer names the protocol to use.
    await answer_with_error(refusal, body, scope, send, (b"upgrade", b"HTTP/1.1"), (b"connection", b"upgrade, close"))
