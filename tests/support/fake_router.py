"""A router without llama.cpp, in the test's own loop: the routes an engine uses, with an event stream or without."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator

from support.service import free_port


class FakeRouter:
    """Models load at once, or with `exit_code` fail. Without `has_events` the stream is a 404, as in older builds."""

    def __init__(self, *names: str, has_events: bool) -> None:
        self.port = free_port()
        self.statuses = dict.fromkeys(names, "unloaded")
        self.exit_codes: dict[str, int] = {}
        self.failing: set[str] = set()
        self.asked: list[str] = []
        self.is_router = True
        """False: it lists models as a server of one model does."""
        self._has_events = has_events
        self._streams: set[asyncio.StreamWriter] = set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[FakeRouter]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        try:
            yield self
        finally:
            server.close()
            self.break_streams()

    def break_streams(self) -> None:
        for writer in self._streams:
            writer.transport.abort()
        self._streams.clear()

    def become(self, name: str, status: str, exit_code: int | None = None) -> None:
        self.statuses[name] = status
        self.exit_codes.pop(name, None)
        data: dict[str, object] = {"status": status}
        if exit_code is not None:
            self.exit_codes[name] = data["exit_code"] = exit_code
        event = json.dumps({"model": name, "event": "status_change", "data": data})
        for writer in self._streams:
            writer.write(f"data: {event}\n\n".encode())

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        length = next((int(line[15:]) for line in head.split("\r\n") if line.startswith("content-length:")), 0)
        body = json.loads(await reader.readexactly(length)) if length else {}
        method, target, _ = head.split(" ", 2)
        self.asked.append(f"{method} {target}")
        if target == "/models/sse" and self._has_events:
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n")
            self._streams.add(writer)
            return
        status, document = self._answer(target, body)
        content = json.dumps(document).encode()
        writer.write(b"HTTP/1.1 %d X\r\nContent-Length: %d\r\n\r\n%b" % (status, len(content), content))
        writer.close()

    def _answer(self, target: str, body: dict[str, str]) -> tuple[int, object]:
        path = target.partition("?")[0]
        if path == "/health":
            return 200, {"status": "ok"}
        if path == "/props":
            return 200, {"total_slots": 3, "default_generation_settings": {"n_ctx": 256}}
        if path == "/models":
            return 200, {"data": [self._entry(name) for name in self.statuses]}
        if path == "/models/load":
            name = body["model"]
            if name in self.failing:
                self.become(name, "unloaded", 1)
            else:
                self.become(name, "loading")
                self.become(name, "loaded")
            return 200, {"success": True}
        if path == "/models/unload":
            self.become(body["model"], "unloaded", 0)
            return 200, {"success": True}
        return 404, {"error": {"message": "File Not Found"}}

    def _entry(self, name: str) -> dict[str, object]:
        if not self.is_router:
            return {"id": name}
        code = self.exit_codes.get(name)
        failure = {"failed": True, "exit_code": code} if code else {}
        return {"id": name, "status": {"value": self.statuses[name], "args": [], **failure}}
