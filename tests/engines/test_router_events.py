"""Following a router: by its events, without them, and through its absences."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from llama_async_proxy.engines.router import RouterEngine
from llama_async_proxy.engines.router_host import RemoteRouter
from llama_async_proxy.errors import EngineMissing, LoadFailed
from llama_async_proxy.events import EngineChanged
from llama_async_proxy.records.engine import EngineEventType, EngineStatus
from llama_async_proxy.records.models import ModelKind
from llama_async_proxy.records.runtime import Endpoint, LaunchSpec, ModelStatus
from support.fake_router import FakeRouter
from support.rig import EngineRig

READY, UNLOADED, FAILED = ModelStatus.READY, ModelStatus.UNLOADED, ModelStatus.FAILED
SPEC = LaunchSpec(1, "m1", "router:m1", ModelKind.CHAT, load_timeout_s=20.0)
told = pytest.mark.parametrize("has_events", [True, False], ids=["events", "polling"])


def make(router: FakeRouter) -> EngineRig[RouterEngine]:
    return EngineRig(lambda outlets: RouterEngine(RemoteRouter(router.url), outlets, registered=lambda: (SPEC,)))


@asynccontextmanager
async def attached(router: FakeRouter) -> AsyncIterator[EngineRig[RouterEngine]]:
    async with router.running(), make(router).running() as rig:
        yield rig


@told
async def test_a_model_loads_and_unloads(has_events: bool) -> None:
    router = FakeRouter("m1", has_events=has_events)
    async with attached(router) as rig:
        runtime = await rig.engine.load(SPEC)
        assert runtime.endpoint == Endpoint("127.0.0.1", router.port, "m1")
        assert (runtime.slots, runtime.context_size) == (3, 256)
        assert "get /props?model=m1&autoload=false" in router.asked
        await rig.engine.unload(1)
        assert router.statuses == {"m1": "unloaded"}


@told
async def test_a_load_that_fails_says_so(has_events: bool) -> None:
    router = FakeRouter("m1", has_events=has_events)
    router.failing.add("m1")
    async with attached(router) as rig:
        with pytest.raises(LoadFailed) as caught:
            await rig.engine.load(SPEC)
        assert caught.value.exit_code == 1
        assert rig.engine.runtime(1).status is FAILED


@told
async def test_what_others_load_and_unload_is_shown(has_events: bool) -> None:
    router = FakeRouter("m1", has_events=has_events)
    async with attached(router) as rig:
        router.become("m1", "loaded")
        await rig.until_status(READY)
        router.become("m1", "unloaded", 0)
        await rig.until_status(UNLOADED)
        await rig.settle()
        assert rig.engine_events() == [EngineEventType.STARTED]


@told
async def test_what_runs_there_at_the_start_is_not_loaded_again(has_events: bool) -> None:
    router = FakeRouter("m1", has_events=has_events)
    router.become("m1", "loaded")
    async with attached(router) as rig:
        await rig.until_status(READY)
        assert "post /models/load" not in router.asked
    assert router.statuses == {"m1": "loaded"}, "it is not ours to unload when we leave"


async def test_a_broken_stream_is_taken_up_again_and_what_was_missed_is_seen() -> None:
    router = FakeRouter("m1", has_events=True)
    async with attached(router) as rig:
        await rig.engine.load(SPEC)
        router.break_streams()
        router.become("m1", "unloaded", 0)
        await rig.until_status(UNLOADED)
        await rig.engine.load(SPEC)
        assert rig.engine.state.status is EngineStatus.RUNNING


async def test_a_router_that_comes_later_is_found() -> None:
    router = FakeRouter("m1", has_events=True)
    rig = make(router)
    with rig.bus.subscribe(EngineChanged) as changes:
        async with rig.engine:
            with pytest.raises(EngineMissing, match="No router answers"):
                await rig.engine.start()
            assert rig.engine.state.status is EngineStatus.ERROR
            with pytest.raises(EngineMissing, match="No router answers"):
                await rig.engine.load(SPEC)
            async with router.running():
                async for change in changes:
                    if isinstance(change, EngineChanged) and change.type is EngineEventType.STARTED:
                        break
                assert (await rig.engine.load(SPEC)).status is READY


async def test_a_router_that_goes_and_comes_brings_its_models_back() -> None:
    router = FakeRouter("m1", has_events=True)
    rig = make(router)
    async with contextlib.AsyncExitStack() as stack:
        async with router.running():
            await stack.enter_async_context(rig.running())
            await rig.engine.load(SPEC)
        await rig.until(lambda r: r.engine.state.status is EngineStatus.ERROR)
        assert "is lost" in str(rig.engine.state.error)
        router.statuses["m1"] = "unloaded"
        async with router.running():
            await rig.until_status(READY)
            assert rig.engine.state.status is EngineStatus.RUNNING


async def test_another_server_is_no_router() -> None:
    router = FakeRouter("single", has_events=True)
    router.is_router = False
    rig = make(router)
    async with router.running(), rig.engine:
        with pytest.raises(EngineMissing, match="it is no router's"):
            await rig.engine.start()
