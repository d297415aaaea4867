from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from starlette.types import Receive, Scope, Send

from llama_async_proxy.api.http.metering import MeteringMiddleware
from llama_async_proxy.monitor.requests import RequestMeter
from support.asgi import RawClient, serving


class Door:
    """Answers as the path says; `/api/wait` when told to."""

    def __init__(self) -> None:
        self.meter = RequestMeter()
        self.waiting = asyncio.Event()
        self.go_on = asyncio.Event()
        self.port = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        name = scope["path"].rpartition("/")[2]
        if name == "crash":
            raise RuntimeError("made to fail")
        if name == "wait":
            self.waiting.set()
            await self.go_on.wait()
        if name == "abandoned":
            self.waiting.set()
            while (await receive())["type"] != "http.disconnect":
                pass
            self.go_on.set()
            return
        status = int(name) if name.isdigit() else 200
        await send({"type": "http.response.start", "status": status, "headers": [(b"transfer-encoding", b"chunked")]})
        await send({"type": "http.response.body", "body": b"some", "more_body": True})
        if name != "broken":
            await send({"type": "http.response.body", "body": b""})


@pytest.fixture
async def door() -> AsyncIterator[Door]:
    door = Door()
    async with serving(MeteringMiddleware(door, door.meter)) as door.port:
        yield door


async def ask(door: Door, path: str) -> bytes:
    async with RawClient.connected(door.port) as client:
        await client.post(path, b"", "connection: close")
        return await client.rest()


@pytest.mark.parametrize("path", ["/api/models", "/v1/chat/completions", "/v1/anything", "/completion", "/props"])
async def test_programs_routes_are_counted(door: Door, path: str) -> None:
    await ask(door, path)
    counters = door.meter.snapshot()
    assert (counters.total, counters.active, counters.errors) == (1, 0, 0)
    assert counters.average_response_ms is not None


@pytest.mark.parametrize("path", ["/", "/assets/app.js", "/socket.io/", "/llamaproxws/", "/apis"])
async def test_pages_and_polling_are_not_counted(door: Door, path: str) -> None:
    await ask(door, path)
    assert door.meter.snapshot().total == 0


@pytest.mark.parametrize(("path", "errors"), [("/api/404", 0), ("/api/499", 0), ("/api/500", 1), ("/api/503", 1)])
async def test_only_our_own_failures_are_errors(door: Door, path: str, errors: int) -> None:
    await ask(door, path)
    assert door.meter.snapshot().errors == errors


@pytest.mark.parametrize("path", ["/api/crash", "/v1/broken"])
async def test_an_answer_that_breaks_off_is_an_error(door: Door, path: str) -> None:
    await ask(door, path)
    counters = door.meter.snapshot()
    assert (counters.active, counters.errors) == (0, 1)


async def test_a_request_is_active_until_its_last_byte(door: Door) -> None:
    asking = asyncio.create_task(ask(door, "/api/wait"))
    await door.waiting.wait()
    assert door.meter.snapshot().active == 1
    door.go_on.set()
    await asking
    assert door.meter.snapshot().active == 0


async def test_a_client_that_leaves_is_no_error(door: Door) -> None:
    async with RawClient.connected(door.port) as client:
        await client.post("/v1/abandoned", b"")
        await door.waiting.wait()
    await door.go_on.wait()
    while door.meter.snapshot().active:
        await asyncio.sleep(0)
    assert door.meter.snapshot().errors == 0
