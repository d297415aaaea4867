"""An ASGI application on the real uvicorn, in the test's own loop, and a client that shows the raw bytes."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from typing import Any

import uvicorn

from llama_async_proxy.api.http.websocket import WebSocketProtocol


class _PromptServer(uvicorn.Server):
    """As uvicorn's, but it looks for nothing ten times a second: thousands of tests wait for it to stop."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.stopping = asyncio.Event()

    async def main_loop(self) -> None:
        await self.on_tick(0)
        await self.stopping.wait()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for server in self.servers:
            server.close()
        for connection in list(self.server_state.connections):
            connection.shutdown()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self.config.timeout_graceful_shutdown):
                while self.server_state.connections or self.server_state.tasks:
                    await asyncio.sleep(0.001)
        for task in self.server_state.tasks:
            task.cancel()


@contextlib.asynccontextmanager
async def serving(app: Any, http: Any = "httptools", *, keep_alive_s: int = 600) -> AsyncIterator[int]:
    """Serve `app` as the service does; yields the port. No connection is closed in a test just because it is idle."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    config = uvicorn.Config(
        app, http=http, loop="none", lifespan="off", log_config=None, server_header=False, date_header=False,
        timeout_graceful_shutdown=1, timeout_keep_alive=keep_alive_s,
        ws=WebSocketProtocol, ws_per_message_deflate=False,
    )  # fmt: skip
    server = _PromptServer(config)
    task = asyncio.create_task(server.serve(sockets=[listener]))
    while not server.started:
        await asyncio.sleep(0.001)
    try:
        yield listener.getsockname()[1]
    finally:
        server.stopping.set()
        await task


class RawClient:
    """One TCP connection that speaks HTTP byte by byte."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self.writer = writer

    @classmethod
    @contextlib.asynccontextmanager
    async def connected(cls, port: int) -> AsyncIterator[RawClient]:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            yield cls(reader, writer)
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    async def post(self, path: str, body: bytes, *headers: str) -> None:
        lines = [f"POST {path} HTTP/1.1", "host: localhost", f"content-length: {len(body)}", *headers]
        self.writer.write("\r\n".join(lines).encode() + b"\r\n\r\n" + body)
        await self.writer.drain()

    async def until(self, end: bytes, limit_s: float = 30.0) -> bytes:
        """Everything received up to and including `end`."""
        async with asyncio.timeout(limit_s):
            return await self._reader.readuntil(end)

    async def rest(self, limit_s: float = 30.0) -> bytes:
        """Everything until the server closes."""
        async with asyncio.timeout(limit_s):
            return await self._reader.read()
