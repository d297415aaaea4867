"""The composition root: every way in is there, and what a test passes in place of the machine is used."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from api.harness import ServiceHarness, house, seams
from llama_async_proxy.app import build
from llama_async_proxy.settings import resolve
from support.rig import FAKE_LLAMA


@pytest.fixture
async def at(tmp_path: Path, model_files: Path) -> AsyncIterator[ServiceHarness]:
    async with house(tmp_path, model_files) as at:
        yield at


async def content_type(at: ServiceHarness, path: str, *, accept: str = "*/*") -> tuple[int, str]:
    async with at.http.get(at.url + path, headers={"Accept": accept}) as response:
        return response.status, response.content_type


async def test_every_way_in_answers_at_its_path(at: ServiceHarness) -> None:
    assert await content_type(at, "/api/models") == (200, "application/json")
    assert await content_type(at, "/v1/models") == (200, "application/json")
    assert await content_type(at, "/models") == (200, "application/json")
    assert await content_type(at, "/metrics") == (200, "text/plain")
    assert await content_type(at, "/api/nothing") == (404, "application/json")
    assert (await content_type(at, "/socket.io/?EIO=4&transport=polling"))[0] == 200
    assert (await content_type(at, "/llamaproxws/?EIO=4&transport=polling"))[0] == 200


async def test_inference_goes_through_a_model_that_is_loaded_for_it(at: ServiceHarness) -> None:
    body = {"model": "chat", "messages": [{"role": "user", "content": "hello"}], "stream": True}
    async with at.http.post(f"{at.url}/v1/chat/completions", json=body) as response:
        assert (response.status, response.content_type) == (200, "text/event-stream")
        assert (await response.text()).endswith("data: [DONE]\n\n")
    async with asyncio.timeout(10):  # the client may have read the last byte before the service has noted the end
        while not (recent := (await at.call("GET", "/api/requests"))[1]["data"]["recent"]):
            await asyncio.sleep(0.01)
    assert [request["model"] for request in recent] == ["chat"]


async def test_the_service_runs_what_the_seams_give_it(tmp_path: Path) -> None:
    given: dict[str, Any] = {"models_dir": str(tmp_path), "data_dir": str(tmp_path / "data"), "log_console": False}
    settings = resolve(command_line=given, environment={}, file={}, default_data_dir=tmp_path)
    async with build(settings, seams(tmp_path)) as application:
        context = application.context
        assert context.engine.state.binary == str(FAKE_LLAMA)
        assert (await context.sampler.now()).gpus == ()
        assert context.now_ms() >= context.started_at_ms


async def test_what_was_built_is_closed_at_the_end(tmp_path: Path, model_files: Path) -> None:
    async with house(tmp_path, model_files) as at:
        url = at.url
    async with aiohttp.ClientSession() as http:
        with pytest.raises(aiohttp.ClientConnectorError):
            await http.get(url)
