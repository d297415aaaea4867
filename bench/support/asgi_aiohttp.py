"""The usual way to write such a proxy, to compare with: an ASGI app on uvicorn, aiohttp towards the engine. It looks
at the model in the body, breaks off when its client leaves, and counts the tokens of each answer.

asgi_aiohttp.py PORT ENGINE_PORT
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

import aiohttp
import uvicorn

_HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "content-length", "host"}


class Proxy:
    def __init__(self, engine_port: int) -> None:
        self._engine = f"http://127.0.0.1:{engine_port}"
        self._session: aiohttp.ClientSession | None = None
        self._tokens = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if self._session is None:
            connector = aiohttp.TCPConnector(limit=0)
            self._session = aiohttp.ClientSession(connector=connector, auto_decompress=False)
        body, more = b"", True
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        if json.loads(body)["model"] != "mock":
            raise ValueError("unknown model")
        headers = {k.decode(): v.decode() for k, v in scope["headers"] if k.decode() not in _HOP_BY_HOP}
        relay = asyncio.ensure_future(self._relay(self._session, self._engine + scope["path"], headers, body, send))
        gone = asyncio.ensure_future(receive())
        await asyncio.wait((relay, gone), return_when=asyncio.FIRST_COMPLETED)
        if relay.done():
            gone.cancel()
            relay.result()
        else:
            relay.cancel()
            await asyncio.wait((relay,))

    async def _relay(
        self, session: aiohttp.ClientSession, url: str, headers: dict[str, str], body: bytes, send: Any
    ) -> None:
        async with session.post(url, data=body, headers=headers) as answer:
            kept = [(k.lower().encode(), v.encode()) for k, v in answer.headers.items() if k.lower() not in _HOP_BY_HOP]
            await send({"type": "http.response.start", "status": answer.status, "headers": kept})
            last = before_last = b""
            async for chunk in answer.content.iter_any():
                before_last, last = last, chunk
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
        await send({"type": "http.response.body", "body": b""})
        self._tokens += _tokens(before_last + last)


def _tokens(end: bytes) -> int:
    """Of the last event that is JSON, or of a whole answer."""
    for line in reversed(end.splitlines()):
        text = line.removeprefix(b"data: ")
        if text.startswith(b"{"):
            usage = json.loads(text).get("usage") or {}
            return int(usage.get("completion_tokens", 0))
    return 0


if __name__ == "__main__":
    config = uvicorn.Config(
        Proxy(int(sys.argv[2])), port=int(sys.argv[1]), lifespan="off", log_level="error", access_log=False
    )
    uvicorn.Server(config).run()
