from __future__ import annotations

import asyncio
from typing import Any

import pytest

from inference.scheduling.test_scheduler import SchedulerHarness, settle
from llama_async_proxy.errors import LoadFailed, NotEnoughMemory, Overloaded, ServiceError
from llama_async_proxy.inference.scheduling.policy import Capacity
from llama_async_proxy.inference.scheduling.scheduler import ModelScheduler
from llama_async_proxy.inference.scheduling.snapshot import SchedulerContext
from llama_async_proxy.records.models import Model
from llama_async_proxy.records.runtime import LaunchSpec, MemoryUse, ModelStatus


class FixedMemory:
    """Memory requirements set by the test. The machine has 10 bytes, of which 8 are free."""

    def __init__(self, **needs: int) -> None:
        self.needs = needs
        self.retried: list[str] = []

    async def requirement(self, model: Model, _: LaunchSpec) -> MemoryUse:
        return MemoryUse(self.needs.get(model.slug, 1))

    def capacity(self) -> tuple[Capacity, Capacity]:
        return Capacity(8), Capacity(10)

    def shortage(self, model: Model, requirement: MemoryUse, pinned: MemoryUse) -> NotEnoughMemory:
        return NotEnoughMemory(f"{model.slug} needs {requirement.host_bytes} beside {pinned.host_bytes}")

    async def smaller_load(self, model: Model, spec: LaunchSpec, failure: LoadFailed) -> LaunchSpec | None:
        self.retried.append(failure.reason)
        return spec if len(self.retried) == 1 else None


def harness_with(memory: FixedMemory, **settings: Any) -> SchedulerHarness:
    class WithMemory(SchedulerHarness):
        def build(self) -> ModelScheduler:
            return ModelScheduler(
                self.engine,
                SchedulerContext(
                    settings=lambda: self.settings,
                    models=lambda: self.models,
                    spec_for=self._spec_for,
                    on_use=lambda model_id, _: self.used.append(model_id),
                    memory=memory,
                ),
                self.bus,
            )

    return WithMemory(**settings)


async def test_idle_models_are_evicted_until_memory_is_enough() -> None:
    async with harness_with(FixedMemory(m1=3, m2=3, m3=5)).running() as harness:
        for model_id in (1, 2, 3):
            await harness.use(model_id)
        assert harness.engine.calls == [("load", 1), ("load", 2), ("unload", 1), ("load", 3)]


async def test_memory_of_a_busy_model_is_waited_for() -> None:
    async with harness_with(FixedMemory(m1=5, m2=5)).running() as harness:
        first = await harness.holding(1).started()
        second = harness.holding(2)
        await settle()
        assert not second.is_running
        assert harness.scheduler.runtime(2).status is ModelStatus.QUEUED
        await first.end()
        await (await second.started()).end()
        assert harness.status(1) is ModelStatus.UNLOADED


async def test_a_model_larger_than_the_machine_is_refused_with_numbers_and_evicts_no_model() -> None:
    async with harness_with(FixedMemory(m2=11)).running() as harness:
        await harness.use(1)
        with pytest.raises(NotEnoughMemory, match="m2 needs 11"):
            await harness.use(2)
        assert harness.status(1) is ModelStatus.READY


async def test_a_shortage_error_includes_the_memory_of_pinned_models() -> None:
    async with harness_with(FixedMemory(m1=4, m2=7)).running() as harness:
        harness.pin(1)
        await harness.use(1)
        with pytest.raises(NotEnoughMemory, match="m2 needs 7 beside 4"):
            await harness.use(2)


async def test_a_forced_load_is_tried_whatever_it_takes() -> None:
    async with harness_with(FixedMemory(m2=11)).running() as harness:
        await harness.use(1)
        runtime = await harness.scheduler.load(harness.model(2), force=True)
        assert runtime.status is ModelStatus.READY
        assert harness.status(1) is ModelStatus.UNLOADED


async def test_a_load_that_ran_out_of_memory_is_tried_once_more_if_the_setting_allows() -> None:
    memory = FixedMemory()
    async with harness_with(memory, memory_retry=True).running() as harness:
        harness.engine.failure = LoadFailed("out of memory")
        with pytest.raises(LoadFailed):
            await harness.scheduler.load(harness.model(1))
        assert harness.engine.calls == [("load", 1), ("load", 1)]
    unasked = FixedMemory()
    async with harness_with(unasked).running() as harness:
        harness.engine.failure = LoadFailed("out of memory")
        with pytest.raises(LoadFailed):
            await harness.scheduler.load(harness.model(1))
        assert (harness.engine.calls, unasked.retried) == ([("load", 1)], [])


async def test_models_of_a_group_take_turns_although_there_is_room() -> None:
    groups = {"big": {"models": ["M1", "m2"], "together": False}}
    async with SchedulerHarness(groups=groups).running() as harness:
        for model_id in (1, 3, 2):
            await harness.use(model_id)
        assert harness.engine.calls == [("load", 1), ("load", 3), ("unload", 1), ("load", 2)]


async def test_a_pinned_model_of_the_same_group_refuses_the_others() -> None:
    async with SchedulerHarness(groups={"big": {"models": ["m1", "m2"], "together": False}}).running() as harness:
        harness.pin(1)
        await harness.use(1)
        with pytest.raises(Overloaded, match="group"):
            await harness.use(2)


class Revoked:
    """`revoke` of one request."""

    def __call__(self, reason: ServiceError) -> None:
        raise reason


async def test_requests_queue_by_priority_and_positions_are_reported() -> None:
    async with SchedulerHarness(max_models=1).running() as harness:
        running = await harness.holding(1).started()
        revokes = {priority: Revoked() for priority in (0, -9, 9)}
        served: list[int] = []

        async def ask(priority: int) -> None:
            async with harness.scheduler.lease(harness.model(2), revokes[priority], priority):
                served.append(priority)

        waiting = [asyncio.create_task(ask(priority)) for priority in (0, -9, 9)]
        await settle()
        assert harness.scheduler.queue_positions() == {revokes[9]: 1, revokes[0]: 2, revokes[-9]: 3}
        await running.end()
        await asyncio.gather(*waiting)
        assert served == [9, 0, -9]
        assert harness.scheduler.queue_positions() == {}
