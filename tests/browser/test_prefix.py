"""The UI below a prefix that a reverse proxy takes off, as nginx does."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator

import aiohttp
import pytest
from aiohttp import web
from playwright.async_api import expect

from support.browser import OpenPage
from support.service import RunningService

pytestmark = pytest.mark.browser

PREFIX = "/tools/llm"


async def _pump(source: web.WebSocketResponse | aiohttp.ClientWebSocketResponse, sink: object) -> None:
    assert isinstance(sink, web.WebSocketResponse | aiohttp.ClientWebSocketResponse)
    async for message in source:
        await sink.send_str(message.data)
    await sink.close()


@pytest.fixture
async def prefixed(service: RunningService) -> AsyncIterator[str]:
    """The service's address behind the proxy."""
    asked_outside: list[str] = []

    async def forward(request: web.Request) -> web.StreamResponse:
        target = service.url + request.path_qs.removeprefix(PREFIX)
        headers = {
            k: v for k, v in request.headers.items() if k.lower() in ("host", "origin", "accept", "content-type")
        }
        headers["X-Forwarded-Prefix"] = PREFIX
        if request.headers.get("Upgrade") == "websocket":
            response = web.WebSocketResponse()
            await response.prepare(request)
            async with client.ws_connect(target.replace("http", "ws", 1), headers=headers) as upstream:
                await asyncio.gather(_pump(response, upstream), _pump(upstream, response))
            return response
        async with client.request(request.method, target, headers=headers, data=await request.read()) as answer:
            kept = {k: v for k, v in answer.headers.items() if k in ("Content-Type", "Content-Security-Policy")}
            return web.Response(status=answer.status, body=await answer.read(), headers=kept)

    async def outside(request: web.Request) -> web.Response:
        asked_outside.append(request.path)
        return web.Response(status=404)

    app = web.Application()
    app.router.add_route("*", PREFIX + "/{path:.*}", forward)
    app.router.add_route("*", "/{path:.*}", outside)
    runner = web.AppRunner(app, shutdown_timeout=1)
    async with aiohttp.ClientSession(auto_decompress=True) as client:
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        host, port = runner.addresses[0][:2]
        yield f"http://{host}:{port}{PREFIX}"
        await runner.cleanup()
    assert asked_outside == []


async def test_everything_works_below_a_prefix(prefixed: str, open_page: OpenPage) -> None:
    page = await open_page(f"{prefixed}/models")
    await expect(page.get_by_role("rowheader")).to_have_count(4)
    await page.get_by_role("link", name="Chat", exact=True).click()
    await expect(page).to_have_url(f"{prefixed}/chat")
    await page.get_by_role("combobox", name="Model").select_option("chat")
    await page.get_by_role("textbox", name="Message").fill("Hello")
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("article", name="Assistant")).to_contain_text("tokens/s", timeout=30_000)
    await expect(page).to_have_url(re.compile(rf"^{re.escape(prefixed)}/chat/\d+$"))
    await page.reload()
    await expect(page.get_by_role("article", name="Assistant")).to_contain_text("tokens/s", timeout=30_000)
