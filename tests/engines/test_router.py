"""The engine's contract with llama-server's router, local and remote."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path

import pytest
import pytest_asyncio

from llama_async_proxy.engines.discovery import binary_launcher
from llama_async_proxy.engines.local_router import LocalRouter, RouterOptions
from llama_async_proxy.engines.remote_router import RemoteRouter
from llama_async_proxy.engines.router import RouterEngine
from llama_async_proxy.engines.router_api import RouterApi
from llama_async_proxy.engines.router_host import RouterHost
from llama_async_proxy.engines.router_schema import RouterModel
from llama_async_proxy.engines.supervisor import Timing
from llama_async_proxy.errors import EngineMissing, EngineStopped, LoadFailed
from llama_async_proxy.inference.upstream.client import UpstreamClient, UpstreamRequest
from llama_async_proxy.inference.upstream.connection_pool import ConnectionPool
from llama_async_proxy.records.engine import EngineEventType, EngineStatus
from llama_async_proxy.records.models import ModelKind
from llama_async_proxy.records.options import OptionValue
from llama_async_proxy.records.runtime import Endpoint, LaunchSpec, ModelRuntime, ModelStatus
from support.rig import EngineRig, children_of_this_process
from support.service import clean_environment, free_port
from support.upstream import make_settings

pytestmark = pytest.mark.engine

LOADING, READY, SLEEPING = ModelStatus.LOADING, ModelStatus.READY, ModelStatus.SLEEPING
STOPPING, UNLOADED, FAILED = ModelStatus.STOPPING, ModelStatus.UNLOADED, ModelStatus.FAILED
CHAT, EMBED, BROKEN = 1, 2, 3
TIMING = Timing(restart_delays_s=(0.2,) * 10)
"""Many tries, because a killed router's port becomes free only when its children have ended."""


def spec(model_id: int, path: Path, kind: ModelKind = ModelKind.CHAT, **options: OptionValue) -> LaunchSpec:
    named = {"threads": 1, **{key.replace("_", "-"): value for key, value in options.items()}}
    return LaunchSpec(model_id, path.stem, str(path), kind, named, load_timeout_s=60.0)


@pytest.fixture
def specs(model_files: Path, tmp_path: Path) -> dict[int, LaunchSpec]:
    broken = tmp_path / "broken.gguf"
    broken.write_bytes((model_files / "chat.gguf").read_bytes()[:20_000])
    return {
        CHAT: spec(CHAT, model_files / "chat.gguf", ctx_size=1024, parallel=2),
        EMBED: spec(EMBED, model_files / "embed.gguf", ModelKind.EMBEDDING),
        BROKEN: spec(BROKEN, broken),
    }


class RouterRig(EngineRig[RouterEngine]):
    def __init__(
        self,
        host: RouterHost,
        specs: dict[int, LaunchSpec],
        found: Callable[[Sequence[RouterModel]], None] = lambda _: None,
    ) -> None:
        self.specs = specs
        self.pool = ConnectionPool(make_settings)
        self.client = UpstreamClient(self.pool)

        async def tell(models: Sequence[RouterModel]) -> None:
            found(models)

        super().__init__(
            lambda hooks: RouterEngine(host, hooks, registered=lambda: tuple(specs.values()), on_models=tell), TIMING
        )

    async def load(self, model_id: int = CHAT) -> ModelRuntime:
        return await self.engine.load(self.specs[model_id])

    @property
    def api(self) -> RouterApi:
        assert self.engine.state.endpoint is not None
        return RouterApi(self.engine.state.endpoint)

    async def router_statuses(self) -> dict[str, str]:
        return {model.name: model.status for model in await self.api.models()}

    async def ask(self, runtime: ModelRuntime, path: str, body: object = None) -> dict[str, object]:
        """Status and text of a request that the data path sends to the model's endpoint."""
        assert runtime.endpoint is not None
        content = b"" if body is None else json.dumps(body).encode()
        request = UpstreamRequest("GET" if body is None else "POST", path.encode(), (), content)
        async with self.client.request(runtime.endpoint, request) as response:
            answer = b"".join([chunk async for chunk in response])
        return {"status": response.status, "text": answer.decode()}


@pytest.fixture
def options() -> RouterOptions:
    return RouterOptions("127.0.0.1", free_port(), 4, autoload=False)


@pytest.fixture
def own(llama_server: Path, specs: dict[int, LaunchSpec], options: RouterOptions, tmp_path: Path) -> LocalRouter:
    return LocalRouter(
        find_launcher=lambda: binary_launcher(llama_server),
        options=lambda: options,
        registered=lambda: tuple(specs.values()),
        preset_path=tmp_path / "router-models.ini",
        environment=clean_environment(),
    )


@pytest_asyncio.fixture
async def rig(own: LocalRouter, specs: dict[int, LaunchSpec]) -> AsyncIterator[RouterRig]:
    before = children_of_this_process()
    async with RouterRig(own, specs).running() as running:
        yield running
        running.pool.close()
    assert children_of_this_process() <= before


async def test_a_model_loads_answers_and_unloads(rig: RouterRig) -> None:
    runtime = await rig.load()
    assert (runtime.context_size, runtime.slots) == (512, 2)
    assert (runtime.rss_bytes or 0) > 10 << 20
    assert runtime.endpoint == Endpoint("127.0.0.1", rig.api.endpoint.port, "chat")
    answer = await rig.ask(
        runtime, "/v1/chat/completions", {"model": "?", "messages": [{"role": "user", "content": "a"}]}
    )
    assert answer["status"] == 200
    assert (await rig.engine.unload(CHAT)).status is UNLOADED
    assert (await rig.router_statuses())["chat"] == "unloaded"
    await rig.settle()
    assert rig.statuses() == [LOADING, READY, STOPPING, UNLOADED]


async def test_every_registered_model_is_served_under_its_alias_and_kind(rig: RouterRig) -> None:
    assert await rig.router_statuses() == dict.fromkeys(("chat", "embed", "broken"), "unloaded")
    runtime = await rig.load(EMBED)
    answer = await rig.ask(runtime, "/v1/embeddings", {"input": "hello"})
    assert answer["status"] == 200


async def test_progress_and_log_lines_belong_to_their_model(rig: RouterRig) -> None:
    await rig.load()
    await rig.settle()
    stages = {p.stage for e in rig.events if (p := getattr(getattr(e, "runtime", None), "progress", None))}
    assert stages == {"starting", "text_model"}
    await rig.until(lambda r: any(line.source == "model:chat" and "loading model" in line.message for line in r.lines))
    assert {line.source for line in rig.lines} == {"model:chat", "router"}


async def test_a_broken_model_fails_with_exit_code_and_log(rig: RouterRig) -> None:
    with pytest.raises(LoadFailed, match="not within the file bounds") as caught:
        await rig.load(BROKEN)
    assert caught.value.exit_code == 1
    assert any("not within the file bounds" in line for line in caught.value.log_tail)
    assert rig.engine.runtime(BROKEN).status is FAILED
    assert (await rig.load()).status is READY, "the router goes on"


async def test_options_of_a_load_reach_the_model_and_leave_others_running(rig: RouterRig) -> None:
    embed = await rig.load(EMBED)
    rig.specs[CHAT] = spec(CHAT, Path(rig.specs[CHAT].path), ctx_size=512, parallel=1)
    runtime = await rig.load()
    assert (runtime.context_size, runtime.slots) == (512, 1)
    assert rig.engine.runtime(EMBED).pid == embed.pid


async def test_an_unknown_option_fails_its_own_load_only(rig: RouterRig) -> None:
    with pytest.raises(LoadFailed, match="no-such-option"):
        await rig.engine.load(spec(CHAT, Path(rig.specs[CHAT].path), no_such_option=1))
    assert (await rig.load()).status is READY


async def test_an_unknown_option_of_one_registered_model_does_not_stop_the_others(
    own: LocalRouter, specs: dict[int, LaunchSpec]
) -> None:
    specs[EMBED] = spec(EMBED, Path(specs[EMBED].path), no_such_option=1)
    async with RouterRig(own, specs).running() as rig:
        assert (await rig.engine.load(specs[CHAT])).status is READY
        with pytest.raises(LoadFailed, match="no-such-option"):
            await rig.engine.load(specs[EMBED])


async def test_metrics_of_one_model_load_nothing(rig: RouterRig) -> None:
    runtime = await rig.load()
    page = await rig.ask(runtime, "/metrics")
    assert "llamacpp:prompt_tokens_total" in str(page["text"])
    await rig.engine.unload(CHAT)
    assert (await rig.ask(runtime, "/metrics"))["status"] == 400
    assert (await rig.router_statuses())["chat"] == "unloaded"


async def test_a_model_falls_asleep_and_wakes_for_a_request(rig: RouterRig) -> None:
    await rig.engine.load(spec(CHAT, Path(rig.specs[CHAT].path), sleep_idle_seconds=1))
    runtime = await rig.until_status(SLEEPING)
    assert (await rig.ask(runtime, "/completion", {"prompt": "a", "n_predict": 2}))["status"] == 200
    await rig.until(lambda r: r.statuses()[-2:] == [SLEEPING, READY] or SLEEPING in r.statuses()[:-1])


async def test_a_model_restarts_after_kill_minus_9_of_its_process(rig: RouterRig) -> None:
    first = await rig.load()
    assert first.pid is not None
    os.kill(first.pid, signal.SIGKILL)
    await rig.until(lambda r: r.engine.runtime(CHAT).status is READY and r.engine.runtime(CHAT).pid != first.pid)
    assert rig.engine_events() == [EngineEventType.STARTED, EngineEventType.CLOSED]


async def test_the_router_and_its_models_restart_after_kill_minus_9(rig: RouterRig, own: LocalRouter) -> None:
    await rig.load()
    assert own.pid is not None
    os.kill(own.pid, signal.SIGKILL)
    await rig.until(lambda r: r.statuses()[-2:] == [LOADING, READY] and len(r.statuses()) == 4)
    assert (await rig.ask(rig.engine.runtime(CHAT), "/props"))["status"] == 200
    assert rig.engine.state.status is EngineStatus.RUNNING
    started = [event for event in rig.engine_events() if event is EngineEventType.STARTED]
    assert len(started) == 2


async def test_a_model_loaded_by_another_client_is_shown(rig: RouterRig) -> None:
    await rig.api.load("chat")
    runtime = await rig.until_status(READY)
    assert runtime.slots == 2
    await rig.api.unload("chat")
    await rig.until_status(UNLOADED)
    await rig.settle()
    assert rig.engine_events() == [EngineEventType.STARTED]


async def test_stopping_ends_all_processes_and_starting_begins_anew(rig: RouterRig) -> None:
    await rig.load()
    await rig.engine.stop()
    assert rig.engine.state.status is EngineStatus.IDLE
    assert rig.engine.runtimes() == ()
    with pytest.raises(EngineStopped):
        await rig.load()
    await rig.engine.start()
    assert (await rig.load()).status is READY


async def test_a_taken_port_is_named(own: LocalRouter, specs: dict[int, LaunchSpec], options: RouterOptions) -> None:
    server = await asyncio.start_server(lambda *_: None, "127.0.0.1", options.port)
    async with server:
        with pytest.raises(EngineMissing, match=str(options.port)):
            async with RouterRig(own, specs).running():
                pass


# --- a remote router -------------------------------------------------------------------------------


@pytest.fixture
def remote_url(llama_server: Path, specs: dict[int, LaunchSpec], tmp_path: Path) -> Iterator[str]:
    """URL of a router that others run, with the chat model under another name, and with an unknown model."""
    port = free_port()
    preset = tmp_path / "elsewhere.ini"
    preset.write_text(f"[theirs]\nmodel = {specs[CHAT].path}\nthreads = 1\n\n[unknown]\nmodel = {specs[BROKEN].path}\n")
    command = [str(llama_server), "--host", "127.0.0.1", "--port", str(port), "--models-preset", str(preset)]
    with subprocess.Popen(command, env=clean_environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as p:
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            p.terminate()


async def until_healthy(url: str) -> None:
    api = RouterApi(Endpoint("127.0.0.1", int(url.rpartition(":")[2])))
    while not await api.is_healthy():
        await asyncio.sleep(0.02)


@pytest_asyncio.fixture
async def attached(remote_url: str, specs: dict[int, LaunchSpec]) -> AsyncIterator[RouterRig]:
    await until_healthy(remote_url)
    async with RouterRig(RemoteRouter(remote_url), specs).running() as running:
        yield running
        running.pool.close()


async def test_a_remote_router_runs_the_model_that_it_lists_with_the_same_file(attached: RouterRig) -> None:
    runtime = await attached.load()
    assert runtime.endpoint is not None
    assert runtime.endpoint.model == "theirs"
    answer = await attached.ask(runtime, "/completion", {"model": "chat", "prompt": "a", "n_predict": 2})
    assert answer["status"] == 200
    await attached.engine.unload(CHAT)
    assert (await attached.router_statuses())["theirs"] == "unloaded"
    with pytest.raises(LoadFailed, match="knows no model 'embed'"):
        await attached.load(EMBED)


async def test_a_remote_router_keeps_running_with_its_models(remote_url: str, specs: dict[int, LaunchSpec]) -> None:
    await until_healthy(remote_url)
    found: list[str] = []
    async with RouterRig(
        RemoteRouter(remote_url), specs, lambda models: found.extend(model.name for model in models)
    ).running() as rig:
        await rig.engine.load(specs[CHAT])
        api = RouterApi(rig.engine.state.endpoint or Endpoint("", 0))
    assert {"theirs", "unknown"} <= set(found)
    assert {model.name: model.status for model in await api.models()}["theirs"] == "loaded"
    async with RouterRig(RemoteRouter(remote_url), specs).running() as again:
        assert (await again.until_status(READY)).endpoint is not None, "a model that runs already is shown at once"


async def test_a_remote_router_that_does_not_answer_is_tried_again(
    llama_server: Path, specs: dict[int, LaunchSpec], tmp_path: Path
) -> None:
    port = free_port()
    rig = RouterRig(RemoteRouter(f"http://127.0.0.1:{port}"), specs)
    with contextlib.suppress(EngineMissing):
        await rig.engine.start()
    assert rig.engine.state.status is EngineStatus.ERROR
    await rig.engine.stop()
