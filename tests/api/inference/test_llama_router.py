"""The API of llama-server's router as its clients use it, on an engine of fake processes."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
from starlette.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send

from api.harness import ServiceHarness, house
from llama_async_proxy.api.inference.llama_router import LlamaRouterApp
from llama_async_proxy.api.prometheus import Family, PrometheusApp, render
from llama_async_proxy.api.ui.static import is_navigation
from llama_async_proxy.engines.router_schema import parse_event, parse_models
from llama_async_proxy.monitor.totals import InferenceTotals
from llama_async_proxy.operations.options import StartWithPreset, start_with_preset
from llama_async_proxy.operations.presets import ImportPreset, import_preset
from llama_async_proxy.records.requests import RequestRecord
from support.asgi import serving

NAVIGATION = {"Accept": "text/html,application/xhtml+xml", "Sec-Fetch-Mode": "navigate"}


class RouterSite:
    def __init__(self, inner: ServiceHarness, door: LlamaRouterApp, url: str) -> None:
        self.house, self.door, self.url = inner, door, url

    async def call(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
        async with self.house.http.request(method, self.url + path, json=body, headers=headers) as response:
            content = await response.read()
            is_json = response.content_type == "application/json"
            return response.status, json.loads(content) if is_json and content else content.decode()

    async def entry(self, name: str = "chat") -> Any:
        _, listed = await self.call("GET", "/models")
        return next(entry for entry in listed["data"] if entry["id"] == name)

    @contextlib.asynccontextmanager
    async def events(self) -> AsyncIterator[Events]:
        async with self.house.http.get(self.url + "/models/sse") as response:
            assert response.content_type == "text/event-stream"
            await response.content.readuntil(b"\n\n")
            yield Events(response)


class Events:
    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self.response = response

    async def until(self, name: str, status: str) -> list[Any]:
        """Everything up to the event that says so, which is the last."""
        seen: list[Any] = []
        while True:
            frame = (await self.response.content.readuntil(b"\n\n")).decode()
            if frame.startswith("data: "):
                seen.append(json.loads(frame.removeprefix("data: ")))
                if seen[-1]["model"] == name and seen[-1]["data"].get("status") == status:
                    return seen


@pytest_asyncio.fixture
async def site(tmp_path: Path, model_files: Path) -> AsyncIterator[RouterSite]:
    async with house(tmp_path, model_files) as inner:
        door = LlamaRouterApp(lambda: inner.context, is_navigation)
        site = RouterSite(inner, door, "")
        metrics = PrometheusApp(lambda: inner.context)

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            own = next((d for d in (metrics, door) if d.handles(scope)), PlainTextResponse("another door"))
            await own(scope, receive, send)

        running = asyncio.create_task(door.run())
        try:
            async with serving(app) as port:
                site.url = f"http://127.0.0.1:{port}"
                yield site
                door.close()
        finally:
            running.cancel()
            await asyncio.wait({running})


async def test_the_list_has_the_shape_of_the_routers(site: RouterSite) -> None:
    status, listed = await site.call("GET", "/models")
    assert (status, listed["object"]) == (200, "list")
    assert {model.name: model.status for model in parse_models(listed)} == dict.fromkeys(
        ("chat", "embed", "rerank", "slow"), "unloaded"
    )
    entry = await site.entry()
    assert entry["status"]["preset"].startswith("[chat]\nmodel = /")
    assert "--alias" in entry["status"]["args"]
    assert entry["architecture"] == {"input_modalities": ["text"], "output_modalities": ["text"]}
    assert (entry["source"], entry["can_remove"], entry["tags"], entry["owned_by"]) == ("preset", False, [], "llamacpp")
    assert "meta" not in entry, "only of a running model"


async def test_a_load_is_answered_at_once_and_its_way_told(site: RouterSite) -> None:
    async with site.events() as events:
        assert await site.call("POST", "/models/load", {"model": "chat"}) == (200, {"success": True})
        told = await events.until("chat", "loaded")
        assert told[0] == {"model": "chat", "event": "model_status", "data": {"status": "loading"}}
        assert {event["event"] for event in told[1:]} == {"status_change"}
        assert told[-1]["data"]["info"]["id"] == "chat"
        assert (await site.entry())["status"]["value"] == "loaded"
        assert (await site.entry())["meta"]["n_ctx"] == 2048
        assert await site.call("POST", "/models/unload", {"model": "chat"}) == (200, {"success": True})
        ended = (await events.until("chat", "unloaded"))[-1]
        assert ended == {"model": "chat", "event": "status_change", "data": {"status": "unloaded", "exit_code": 0}}
        assert parse_event(json.dumps(ended)) is not None


async def test_who_asks_after_a_load_was_begun_sees_it(site: RouterSite) -> None:
    await site.call("POST", "/models/load", {"model": "chat"})
    assert (await site.entry())["status"]["value"] in ("loading", "loaded")
    status, answer = await site.call("POST", "/models/load", {"model": "chat"})
    assert (status, answer["error"]["message"]) == (400, "model is already running")


async def test_a_failed_load_shows_its_exit_code(site: RouterSite) -> None:
    model = site.house.context.names.index.resolve("chat")
    assert model is not None
    await site.house.context.store.models.update(model.id, options={"fake-fail": True})
    async with site.events() as events:
        await site.call("POST", "/models/load", {"model": "chat"})
        told = (await events.until("chat", "unloaded"))[-1]
    assert told["data"]["exit_code"] == 1
    status = (await site.entry())["status"]
    assert (status["value"], status["failed"], status["exit_code"]) == ("unloaded", True, 1)


@pytest.mark.parametrize(
    ("path", "body", "status", "says"),
    [
        ("/models/load", {"model": "nix"}, 404, "not found"),
        ("/models/unload", {"model": "nix"}, 404, "not found"),
        ("/models/unload", {"model": "chat"}, 400, "model is not running"),
        ("/models/load", {}, 400, "model"),
        ("/models/load", {"model": 5}, 400, "model"),
        ("/models/load", {"model": "x" * 70_000}, 413, "larger"),
        ("/models", {"model": "user/repo"}, 405, "GET, HEAD only"),
    ],
)
async def test_errors_have_the_engines_shape(site: RouterSite, path: str, body: object, status: int, says: str) -> None:
    code, answer = await site.call("POST", path, body)
    assert code == answer["error"]["code"] == status
    assert says in answer["error"]["message"]
    assert answer["error"]["type"].endswith("_error")


async def test_a_browser_that_navigates_gets_the_page(site: RouterSite) -> None:
    assert await site.call("GET", "/models", **NAVIGATION) == (200, "another door")
    assert await site.call("GET", "/models", Accept="text/html") == (200, "another door")
    async with site.house.http.get(site.url + "/models", headers={"Sec-Fetch-Mode": "cors"}) as response:
        assert response.content_type == "application/json"
        assert response.headers["Vary"] == "Accept, Sec-Fetch-Mode"


async def test_props_without_a_model_are_the_routers(site: RouterSite) -> None:
    _, props = await site.call("GET", "/props")
    assert (props["role"], props["max_instances"], props["models_autoload"]) == ("router", 4, True)
    assert await site.call("GET", "/props?model=chat") == (200, "another door")


async def test_reload_finds_new_files(site: RouterSite) -> None:
    (site.house.models_dir / "new.gguf").write_bytes((site.house.models_dir / "chat.gguf").read_bytes())
    async with site.events() as events:
        _, listed = await site.call("GET", "/models?reload=1")
        assert "new" in [entry["id"] for entry in listed["data"]]
        frame = await events.response.content.readuntil(b"\n\n")
    assert json.loads(frame.removeprefix(b"data: ")) == {"model": "*", "event": "models_reload", "data": {}}


async def test_streams_end_with_the_service(site: RouterSite) -> None:
    async with site.events() as events:
        site.door.close()
        assert await events.response.content.read() == b""


async def test_head_of_the_list_has_no_body(site: RouterSite) -> None:
    assert await site.call("HEAD", "/models") == (200, "")


# --- Prometheus ---------------------------------------------------------------------------------------


def record(model: str, status: int = 200, **facts: Any) -> RequestRecord:
    return RequestRecord("1", 0, "127.0.0.1", "/v1/chat/completions", model, status, streamed=False, **facts)


async def test_metrics_count_what_ended_and_show_who_runs(site: RouterSite) -> None:
    async with site.events() as events:
        await site.call("POST", "/models/load", {"model": "chat"})
        await events.until("chat", "loaded")
    site.house.context.totals.add([record("chat", total_ms=1500.0, prompt_tokens=7, completion_tokens=5)])
    site.house.context.totals.add([record("chat", 503)])
    _, page = await site.call("GET", "/metrics")
    for line in (
        'llama_async_proxy_inference_requests_total{model="chat",status="200"} 1',
        'llama_async_proxy_inference_requests_total{model="chat",status="503"} 1',
        'llama_async_proxy_inference_prompt_tokens_total{model="chat"} 7',
        'llama_async_proxy_inference_completion_tokens_total{model="chat"} 5',
        'llama_async_proxy_inference_request_seconds_total{model="chat"} 1.5',
        'llama_async_proxy_models{status="ready"} 1',
        'llama_async_proxy_models{status="unloaded"} 3',
        'llama_async_proxy_model_up{model="chat"} 1',
        "# TYPE llama_async_proxy_host_memory_total_bytes gauge",
    ):
        assert line in page.splitlines()
    assert "gpu" not in page, "what is not there is not zero"


async def test_metrics_are_prometheus_text(site: RouterSite) -> None:
    async with site.house.http.get(site.url + "/metrics") as response:
        assert response.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert await site.call("GET", "/metrics?model=chat") == (200, "another door"), "the engine's own"


def test_labels_are_escaped() -> None:
    family = Family("x", "gauge", "Help.", (({"model": 'a"b\\c\nd'}, 0.5),))
    assert render([family]).splitlines()[-1] == 'llama_async_proxy_x{model="a\\"b\\\\c\\nd"} 0.5'


def test_names_that_strangers_invent_are_counted_together() -> None:
    totals = InferenceTotals()
    for i in range(1100):
        totals.add([record(f"m{i}")])
        totals.add([record(f"no{i}", 404)])
    assert len(totals.prompt_tokens) == 1001
    assert totals.requests["other", 404] == 1100


async def test_a_model_is_called_as_the_router_would_call_it(site: RouterSite) -> None:
    """Clients of the router load a name and wait for that name in lists, events and answers."""
    name = "ggml-org/tinygemma3-GGUF:Q8_0"
    [path] = [str(file) for file in site.house.models_dir.glob("chat.gguf")]
    created = ImportPreset("hub", f"[{name}]\nmodel = {Path(path).resolve()}\n")
    await import_preset(site.house.context, created)
    await start_with_preset(site.house.context, StartWithPreset("hub"))
    entry = await site.entry(name)
    assert entry["status"]["value"] == "unloaded"
    async with site.events() as events:
        assert (await site.call("POST", "/models/load", {"model": name}))[1] == {"success": True}
        seen = await events.until(name, "loaded")
    assert {event["model"] for event in seen} == {name}
    loaded = (await site.entry(name))["status"]
    assert loaded["value"] == "loaded"
    assert loaded["args"][loaded["args"].index("--alias") + 1] == name
