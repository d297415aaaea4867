"""Following a router: with events, without events, and when it goes away."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from llama_async_proxy.engines.remote_router import RemoteRouter
from llama_async_proxy.engines.router import RouterEngine
from llama_async_proxy.errors import EngineMissing, LoadFailed
from llama_async_proxy.events import EngineChanged
from llama_async_proxy.records.engine import EngineEventType, EngineStatus
from llama_async_proxy.records.models import ModelKind
from llama_async_proxy.records.runtime import Endpoint, LaunchSpec, ModelStatus
from support.fake_router import FakeRouter
from support.rig import EngineRig

READY, UNLOADED, FAILED = ModelStatus.READY, ModelStatus.UNLOADED, ModelStatus.FAILED
SPEC = LaunchSpec(1, "m1", "router:m1", ModelKind.CHAT, load_timeout_s=20.0)
both_ways = pytest.mark.parametrize("has_events", [True, False], ids=["events", "polling"])


def make(router: FakeRouter) -> EngineRig[RouterEngine]:
    return EngineRig(lambda hooks: RouterEngine(RemoteRouter(router.url), hooks, registered=lambda: (SPEC,)))


@asynccontextmanager
async def attached(router: FakeRouter) -> AsyncIterator[EngineRig[RouterEngine]]:
    async with router.running(), make(router).running() as rig:
        yield rig


@both_ways
async def test_a_model_loads_and_unloads(has_events: bool) -> None:
    router = FakeRouter("m1", has_events=has_events)
    async with attached(router) as rig:
        runtime = await rig.engine.load(SPEC)
        assert runtime.endpoint == Endpoint("127.0.0.1", router.port, "m1")
        assert (runtime.slots, runtime.context_size) == (3, 256)
        assert "get /props?model=m1&autoload=false" in router.asked
        await rig.engine.unload(1)
        assert router.statuses == {"m1": "unloaded"}


@both_ways
async def test_a_failed_load_raises_load_failed(has_events: bool) -> None:
    router = FakeRouter("m1", has_events=has_events)
    router.failing.add("m1")
    async with attached(router) as rig:
        with pytest.raises(LoadFailed) as caught:
            await rig.engine.load(SPEC)
        assert caught.value.exit_code == 1
        assert rig.engine.runtime(1).status is FAILED


@both_ways
async def test_loads_and_unloads_of_other_clients_are_shown(has_events: bool) -> None:
    router = FakeRouter("m1", has_events=has_events)
    async with attached(router) as rig:
        router.become("m1", "loaded")
        await rig.until_status(READY)
        router.become("m1", "unloaded", 0)
        await rig.until_status(UNLOADED)
        await rig.settle()
        assert rig.engine_events() == [EngineEventType.STARTED]


@both_ways
async def test_a_model_that_runs_at_the_start_is_not_loaded_again(has_events: bool) -> None:
    router = FakeRouter("m1", has_events=has_events)
    router.become("m1", "loaded")
    async with attached(router) as rig:
        await rig.until_status(READY)
        assert "post /models/load" not in router.asked
    assert router.statuses == {"m1": "loaded"}, "a remote router keeps its models"


async def test_a_broken_stream_is_resumed_and_missed_changes_are_applied() -> None:
    router = FakeRouter("m1", has_events=True)
    async with attached(router) as rig:
        await rig.engine.load(SPEC)
        router.break_streams()
        router.become("m1", "unloaded", 0)
        await rig.until_status(UNLOADED)
        await rig.engine.load(SPEC)
        assert rig.engine.state.status is EngineStatus.RUNNING


async def test_a_router_that_starts_later_is_found() -> None:
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


async def test_models_are_loaded_again_when_the_router_returns() -> None:
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
