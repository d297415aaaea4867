from __future__ import annotations

import asyncio
from typing import Any

import pytest

from inference.scheduling.test_scheduler import ServiceHarness, settle
from llama_async_proxy.errors import LoadFailed, NotEnoughMemory, Overloaded, ServiceError
from llama_async_proxy.inference.scheduling.policy import Capacity
from llama_async_proxy.inference.scheduling.scheduler import ModelScheduler
from llama_async_proxy.records.models import Model
from llama_async_proxy.records.runtime import LaunchSpec, MemoryUse, ModelStatus


class Ledger:
    """Each model needs what is written down for it; the machine has 10, of which 8 are free."""

    def __init__(self, **needs: int) -> None:
        self.needs = needs
        self.tried: list[str] = []

    async def need(self, model: Model, _: LaunchSpec) -> MemoryUse:
        return MemoryUse(self.needs.get(model.slug, 1))

    def capacity(self) -> tuple[Capacity, Capacity]:
        return Capacity(8), Capacity(10)

    def refusal(self, model: Model, need: MemoryUse, pinned: MemoryUse) -> NotEnoughMemory:
        return NotEnoughMemory(f"{model.slug} needs {need.host_bytes} beside {pinned.host_bytes}")

    async def smaller(self, model: Model, spec: LaunchSpec, failure: LoadFailed) -> LaunchSpec | None:
        self.tried.append(failure.reason)
        return spec if len(self.tried) == 1 else None


def house_with(ledger: Ledger, **settings: Any) -> ServiceHarness:
    class WithMemory(ServiceHarness):
        def build(self) -> ModelScheduler:
            return ModelScheduler(
                self.engine,
                settings=lambda: self.settings,
                models=lambda: self.models,
                spec_for=self._spec_for,
                bus=self.bus,
                used=lambda model_id, _: self.used.append(model_id),
                memory=ledger,
            )

    return WithMemory(**settings)


async def test_idle_models_leave_until_memory_is_enough() -> None:
    async with house_with(Ledger(m1=3, m2=3, m3=5)).running() as house:
        for model_id in (1, 2, 3):
            await house.use(model_id)
        assert house.engine.calls == [("load", 1), ("load", 2), ("unload", 1), ("load", 3)]


async def test_memory_of_a_busy_model_is_waited_for() -> None:
    async with house_with(Ledger(m1=5, m2=5)).running() as house:
        first = await house.holding(1).started()
        second = house.holding(2)
        await settle()
        assert not second.is_running
        assert house.scheduler.runtime(2).status is ModelStatus.QUEUED
        await first.end()
        await (await second.started()).end()
        assert house.status(1) is ModelStatus.UNLOADED


async def test_what_the_machine_never_has_is_refused_with_numbers_and_nobody_leaves_for_it() -> None:
    async with house_with(Ledger(m2=11)).running() as house:
        await house.use(1)
        with pytest.raises(NotEnoughMemory, match="m2 needs 11"):
            await house.use(2)
        assert house.status(1) is ModelStatus.READY


async def test_a_refusal_knows_what_pinned_models_hold() -> None:
    async with house_with(Ledger(m1=4, m2=7)).running() as house:
        house.pin(1)
        await house.use(1)
        with pytest.raises(NotEnoughMemory, match="m2 needs 7 beside 4"):
            await house.use(2)


async def test_a_forced_load_is_tried_whatever_it_takes() -> None:
    async with house_with(Ledger(m2=11)).running() as house:
        await house.use(1)
        runtime = await house.scheduler.load(house.model(2), force=True)
        assert runtime.status is ModelStatus.READY
        assert house.status(1) is ModelStatus.UNLOADED


async def test_a_load_that_ran_out_of_memory_is_tried_once_more_if_the_user_allows() -> None:
    ledger = Ledger()
    async with house_with(ledger, memory_retry=True).running() as house:
        house.engine.failure = LoadFailed("out of memory")
        with pytest.raises(LoadFailed):
            await house.scheduler.load(house.model(1))
        assert house.engine.calls == [("load", 1), ("load", 1)]
    unasked = Ledger()
    async with house_with(unasked).running() as house:
        house.engine.failure = LoadFailed("out of memory")
        with pytest.raises(LoadFailed):
            await house.scheduler.load(house.model(1))
        assert (house.engine.calls, unasked.tried) == ([("load", 1)], [])


async def test_models_of_a_group_take_turns_although_there_is_room() -> None:
    groups = {"big": {"models": ["M1", "m2"], "together": False}}
    async with ServiceHarness(groups=groups).running() as house:
        for model_id in (1, 3, 2):
            await house.use(model_id)
        assert house.engine.calls == [("load", 1), ("load", 3), ("unload", 1), ("load", 2)]


async def test_a_pinned_model_of_the_same_group_refuses_the_others() -> None:
    async with ServiceHarness(groups={"big": {"models": ["m1", "m2"], "together": False}}).running() as house:
        house.pin(1)
        await house.use(1)
        with pytest.raises(Overloaded, match="group"):
            await house.use(2)


class Revoked:
    """Stands for one request."""

    def __call__(self, reason: ServiceError) -> None:
        raise reason


async def test_urgent_requests_are_before_others_of_their_model_and_know_their_position() -> None:
    async with ServiceHarness(max_models=1).running() as house:
        running = await house.holding(1).started()
        revokes = {priority: Revoked() for priority in (0, -9, 9)}
        served: list[int] = []

        async def ask(priority: int) -> None:
            async with house.scheduler.lease(house.model(2), revokes[priority], priority):
                served.append(priority)

        waiting = [asyncio.create_task(ask(priority)) for priority in (0, -9, 9)]
        await settle()
        assert house.scheduler.positions() == {revokes[9]: 1, revokes[0]: 2, revokes[-9]: 3}
        await running.end()
        await asyncio.gather(*waiting)
        assert served == [9, 0, -9]
        assert house.scheduler.positions() == {}
