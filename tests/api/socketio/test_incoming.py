"""What clients of Socket.IO may send: what cannot be read is answered or ends the session with one line in the log."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from api.harness import ServiceHarness, house
from llama_async_proxy.api.socketio.incoming import StrictJson


@pytest.fixture
async def at(tmp_path: Path, model_files: Path) -> AsyncIterator[ServiceHarness]:
    async with house(tmp_path, model_files) as at:
        yield at


@asynccontextmanager
async def connected(at: ServiceHarness) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
    """A websocket on namespace `/`, without a client library."""
    async with at.http.ws_connect(f"{at.url}/llamaproxws/?EIO=4&transport=websocket") as socket:
        await socket.receive_str()
        await socket.send_str("40")
        assert (await socket.receive_str()).startswith("40{")
        yield socket


async def reply(socket: aiohttp.ClientWebSocketResponse, event: str) -> dict[str, Any]:
    async with asyncio.timeout(30):
        while True:
            text = await socket.receive_str()
            if text.startswith(f'42["{event}"'):
                envelope: dict[str, Any] = json.loads(text[2:])[1]
                return envelope


@pytest.mark.parametrize("number", ["NaN", "-Infinity", "1e999"])
async def test_numbers_that_json_does_not_have_are_refused_by_the_field(at: ServiceHarness, number: str) -> None:
    async with connected(at) as socket:
        await socket.send_str(f'42["models:update",{{"modelId":1,"updates":{{"a":[{number}]}},"requestId":"r7"}}]')
        envelope = await reply(socket, "models:update:result")
        assert envelope["error"]["code"] == "INVALID_REQUEST"
        assert envelope["error"]["message"].startswith("updates.a[0]: must be a number that JSON has")
        assert envelope["requestId"] == "r7"


async def test_deep_json_is_answered(at: ServiceHarness) -> None:
    async with connected(at) as socket:
        await socket.send_str(f'42["models:get",{"[" * 1000}{"]" * 1000}]')
        assert "levels" in (await reply(socket, "models:get:result"))["error"]["message"]


async def test_attachments_beyond_the_limit_are_dropped_and_answered(at: ServiceHarness) -> None:
    async with connected(at) as socket:
        await socket.send_str('4550-["models:get",{"modelId":{"_placeholder":true,"num":0}}]')
        for _ in range(50):
            await socket.send_bytes(b"x" * 100_000)
        assert "1 MB" in (await reply(socket, "models:get:result"))["error"]["message"]
        await socket.send_str('42["models:get",{"modelId":1}]')
        assert (await reply(socket, "models:get:result"))["success"]


async def test_packets_have_a_budget_together(at: ServiceHarness, monkeypatch: pytest.MonkeyPatch) -> None:
    async with connected(at) as socket:
        monkeypatch.setattr("llama_async_proxy.api.memory.RequestMemory.reserve", lambda *_: False)
        await socket.send_str('42["models:get",{"modelId":1}]')
        assert "memory.requests" in (await reply(socket, "models:get:result"))["error"]["message"]


async def test_an_unknown_namespace_is_refused_with_a_message(at: ServiceHarness) -> None:
    async with connected(at) as socket:
        await socket.send_str("40/nowhere,")
        async with asyncio.timeout(30):
            while not (refusal := await socket.receive_str()).startswith("44"):
                pass  # a broadcast
        assert refusal.startswith('44/nowhere,{"message":"There is no namespace')


async def test_a_wrong_method_is_405_and_says_which_are_right(at: ServiceHarness) -> None:
    async with at.http.put(f"{at.url}/socket.io/?EIO=4&transport=polling") as response:
        assert (response.status, response.headers["allow"]) == (405, "GET, OPTIONS, POST")


MALFORMED = ("x", "", "9", "4x", "42", "42{}", "42[]", "42[1", "42[[", "43[", "45", "4599-", "49", "4[[")


@pytest.mark.parametrize("transport", ["websocket", "polling"])
@pytest.mark.parametrize("bad", MALFORMED)
async def test_malformed_packets_cost_one_line(
    at: ServiceHarness, caplog: pytest.LogCaptureFixture, transport: str, bad: str
) -> None:
    caplog.set_level(logging.INFO)
    url = f"{at.url}/llamaproxws/?EIO=4&transport={transport}"
    if transport == "websocket":
        async with connected(at) as socket:
            caplog.clear()
            for _ in range(5):
                await socket.send_str(bad)
            async with asyncio.timeout(30):
                while (await socket.receive()).type is aiohttp.WSMsgType.TEXT:
                    pass
    else:
        async with at.http.get(url) as response:
            sid = json.loads((await response.text())[1:])["sid"]
        caplog.clear()
        for packet in ("40", bad, bad):
            async with at.http.post(f"{url}&sid={sid}", data=packet) as response:
                assert response.status in (200, 400)
        await asyncio.sleep(0.05)
    told = [record for record in caplog.records if "llama_async_proxy" in record.name or record.exc_info]
    assert not any(record.exc_info for record in told)
    assert len([record for record in told if record.levelno >= logging.WARNING]) <= 2


def test_what_is_sent_is_json() -> None:
    assert StrictJson.dumps({"a": float("nan"), "b": [float("inf"), 1.5]}) == '{"a":null,"b":[null,1.5]}'
