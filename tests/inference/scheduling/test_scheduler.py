from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest

from llama_async_proxy.errors import DeadlineExceeded, InvalidInput, LoadFailed, Overloaded, ServiceError, Unavailable
from llama_async_proxy.events import EventBus, ModelRuntimeChanged, SettingsChanged
from llama_async_proxy.inference.scheduling.scheduler import ModelScheduler
from llama_async_proxy.records.models import Model
from llama_async_proxy.records.options import OptionValue
from llama_async_proxy.records.runtime import Endpoint, LaunchSpec, ModelRuntime, ModelStatus
from support.upstream import RunningEngine, make_model, make_settings, make_spec


class ServiceHarness:
    """Models 1 to 4, their engine and scheduler, with the watching task running."""

    def __init__(self, **settings: Any) -> None:
        self.settings = make_settings(**settings)
        self.models = tuple(make_model(n, f"m{n}") for n in range(1, 5))
        self.bus = EventBus()
        self.used: list[int] = []
        self.changes: list[ModelRuntimeChanged] = []
        self.spec_error: ServiceError | None = None

    @asynccontextmanager
    async def running(self) -> AsyncIterator[ServiceHarness]:
        self.engine = RunningEngine(self.bus, {m.id: Endpoint("127.0.0.1", 10_000 + m.id) for m in self.models})
        self.scheduler = self.build()
        background = [asyncio.create_task(self.scheduler.run()), asyncio.create_task(self._collect())]
        await asyncio.sleep(0)  # they listen before anything happens
        yield self
        for task in background:
            task.cancel()
        await asyncio.gather(*background, return_exceptions=True)

    def build(self) -> ModelScheduler:
        return ModelScheduler(
            self.engine,
            settings=lambda: self.settings,
            models=lambda: self.models,
            spec_for=self._spec_for,
            bus=self.bus,
            used=lambda model_id, _: self.used.append(model_id),
        )

    async def _collect(self) -> None:
        with self.bus.subscribe(ModelRuntimeChanged) as changes:
            async for change in changes:
                if isinstance(change, ModelRuntimeChanged):
                    self.changes.append(change)

    def _spec_for(self, model: Model, options: Mapping[str, OptionValue]) -> LaunchSpec:
        if self.spec_error is not None:
            raise self.spec_error
        return make_spec(model, options)

    def model(self, model_id: int) -> Model:
        return self.models[model_id - 1]

    def pin(self, model_id: int) -> None:
        self.models = tuple(make_model(m.id, m.slug, is_pinned=m.is_pinned or m.id == model_id) for m in self.models)

    def status(self, model_id: int) -> ModelStatus:
        return self.engine.runtime(model_id).status

    async def use(self, model_id: int) -> None:
        async with self.scheduler.lease(self.model(model_id)):
            pass

    def holding(self, model_id: int) -> Holder:
        return Holder(self, model_id)


class Holder:
    """A request that runs until it is told to end, in a task of its own."""

    def __init__(self, house: ServiceHarness, model_id: int) -> None:
        self.revoked: ServiceError | None = None
        self._running = asyncio.Event()
        self._may_end = asyncio.Event()
        self.task = asyncio.create_task(self._hold(house, model_id))

    async def _hold(self, house: ServiceHarness, model_id: int) -> None:
        async with house.scheduler.lease(house.model(model_id), self._revoke):
            self._running.set()
            await self._may_end.wait()

    def _revoke(self, reason: ServiceError) -> None:
        self.revoked = reason
        self._may_end.set()

    async def started(self) -> Holder:
        async with asyncio.timeout(30):
            await self._running.wait()
        return self

    @property
    def is_running(self) -> bool:
        return self._running.is_set()

    async def end(self) -> None:
        self._may_end.set()
        await self.task


async def settle() -> None:
    """Let every task run as far as it can."""
    for _ in range(20):
        await asyncio.sleep(0)


async def test_a_request_loads_its_model_and_learns_where_it_answers() -> None:
    async with ServiceHarness().running() as house, house.scheduler.lease(house.model(1)) as lease:
        assert lease.endpoint == Endpoint("127.0.0.1", 10_001)
        assert lease.load_s is not None
        assert house.used == [1]
        assert house.scheduler.in_flight(1) == 1
        assert house.scheduler.loaded() == (1,)
    assert house.scheduler.in_flight(1) == 0


async def test_a_ready_model_is_leased_at_once() -> None:
    async with ServiceHarness().running() as house:
        await house.use(1)
        async with house.scheduler.lease(house.model(1)) as lease:
            assert (lease.queued_s, lease.load_s) == (None, None)
        assert house.engine.calls == [("load", 1)]


async def test_many_requests_share_one_load() -> None:
    async with ServiceHarness().running() as house:
        house.engine.gate.clear()
        requests = [asyncio.create_task(house.use(1)) for _ in range(10)]
        await settle()
        assert not any(request.done() for request in requests)
        house.engine.gate.set()
        await asyncio.gather(*requests)
        assert house.engine.calls == [("load", 1)]


async def test_the_least_recently_used_idle_model_makes_room() -> None:
    async with ServiceHarness(max_models=2).running() as house:
        await house.use(1)
        await house.use(2)
        await house.use(1)
        await house.use(3)
        assert house.engine.calls[2:] == [("unload", 2), ("load", 3)]
        assert house.status(1) is ModelStatus.READY


async def test_a_busy_model_is_never_evicted_and_the_next_request_waits_for_it() -> None:
    async with ServiceHarness(max_models=1).running() as house:
        first = await house.holding(1).started()
        second = house.holding(2)
        await settle()
        assert not second.is_running
        assert house.status(1) is ModelStatus.READY
        await first.end()
        await second.started()
        assert house.status(1) is ModelStatus.UNLOADED
        await second.end()


async def test_waiting_requests_are_served_first_come_first_served() -> None:
    async with ServiceHarness(max_models=1).running() as house:
        first = await house.holding(1).started()
        others = [house.holding(model_id) for model_id in (2, 3, 4)]
        await settle()
        await first.end()
        for holder in others:
            await holder.started()
            await holder.end()
        assert [model_id for call, model_id in house.engine.calls if call == "load"] == [1, 2, 3, 4]


async def test_a_request_for_a_model_that_is_coming_up_does_not_queue_behind_others() -> None:
    async with ServiceHarness(max_models=2).running() as house:
        busy = await house.holding(1).started()
        house.engine.gate.clear()
        loading = house.holding(2)
        await settle()
        no_place = house.holding(3)
        joining = house.holding(2)
        await settle()
        house.engine.gate.set()
        await joining.started()
        assert not no_place.is_running
        for holder in (busy, loading, joining, no_place):
            await holder.end()


async def test_a_client_that_left_the_queue_starts_no_load() -> None:
    async with ServiceHarness(max_models=1).running() as house:
        first = await house.holding(1).started()
        gone = house.holding(2)
        await settle()
        gone.task.cancel()
        await asyncio.gather(gone.task, return_exceptions=True)
        third = house.holding(3)
        await first.end()
        await third.started()
        assert ("load", 2) not in house.engine.calls
        assert house.scheduler.in_flight(2) == 0
        await third.end()


async def test_a_load_goes_on_when_the_client_that_began_it_leaves() -> None:
    async with ServiceHarness().running() as house:
        house.engine.gate.clear()
        began, joined = house.holding(1), house.holding(1)
        await settle()
        began.task.cancel()
        house.engine.gate.set()
        await joined.started()
        assert house.scheduler.in_flight(1) == 1
        await joined.end()


async def test_a_model_that_just_came_up_is_not_evicted_before_its_request_began() -> None:
    async with ServiceHarness(max_models=1).running() as house:
        house.engine.gate.clear()
        first, second = house.holding(1), house.holding(2)
        await settle()
        house.engine.gate.set()
        await first.started()
        assert not second.is_running
        await first.end()
        await (await second.started()).end()


async def test_a_place_that_a_crash_frees_is_noticed() -> None:
    async with ServiceHarness(max_models=1).running() as house:
        await house.scheduler.load(house.model(1))
        house.engine.gate.clear()
        house.engine._set(1, ModelStatus.LOADING)  # the engine restarts it by itself
        waiting = house.holding(2)
        await settle()
        house.engine.crash(1)
        house.engine.gate.set()
        await (await waiting.started()).end()


async def test_waiting_for_a_place_ends_after_the_load_timeout() -> None:
    async with ServiceHarness(max_models=1, queue_timeout_s=0.05).running() as house:
        first = await house.holding(1).started()
        with pytest.raises(DeadlineExceeded, match=r"'m2' waited 0\.05 s"):
            await house.use(2)
        await first.end()


async def test_pinned_models_stay_and_say_so() -> None:
    async with ServiceHarness(max_models=1).running() as house:
        house.pin(1)
        await house.use(1)
        with pytest.raises(Overloaded, match="pinned"):
            await house.use(2)


async def test_a_failed_load_reaches_every_waiting_request_and_frees_the_place() -> None:
    async with ServiceHarness(max_models=1).running() as house:
        house.engine.failure = LoadFailed("out of memory", exit_code=1)
        results = await asyncio.gather(*(house.use(1) for _ in range(3)), return_exceptions=True)
        assert [str(result) for result in results] == ["out of memory"] * 3
        house.engine.failure = None
        await house.use(2)


async def test_loading_on_request_can_be_off() -> None:
    async with ServiceHarness(load_on_request=False).running() as house:
        with pytest.raises(InvalidInput, match="'m1' is not loaded"):
            await house.use(1)
        await house.scheduler.load(house.model(1))
        await house.use(1)


async def test_a_request_joins_an_explicit_load_even_then() -> None:
    async with ServiceHarness(load_on_request=False).running() as house:
        house.engine.gate.clear()
        loading = asyncio.create_task(house.scheduler.load(house.model(1)))
        await settle()
        request = house.holding(1)
        house.engine.gate.set()
        await (await request.started()).end()
        assert (await loading).status is ModelStatus.READY


async def test_unloading_waits_for_running_requests() -> None:
    async with ServiceHarness(drain_s=5.0).running() as house:
        request = await house.holding(1).started()
        unloading = asyncio.create_task(house.scheduler.unload(house.model(1)))
        await settle()
        assert not unloading.done()
        assert not house.scheduler.is_ready(house.model(1))
        await request.end()
        assert (await unloading).status is ModelStatus.UNLOADED


async def test_unloading_breaks_requests_off_after_the_drain_time() -> None:
    async with ServiceHarness(drain_s=0.05).running() as house:
        request = await house.holding(1).started()
        await house.scheduler.unload(house.model(1))
        assert request.task.done()
        assert "'m1' was unloaded" in str(request.revoked)
        assert house.status(1) is ModelStatus.UNLOADED


async def test_a_request_during_an_unload_waits_and_loads_anew() -> None:
    async with ServiceHarness(drain_s=5.0).running() as house:
        old = await house.holding(1).started()
        unloading = asyncio.create_task(house.scheduler.unload(house.model(1)))
        await settle()
        new = house.holding(1)
        await settle()
        assert not new.is_running
        await old.end()
        await unloading
        await (await new.started()).end()
        assert house.engine.calls == [("load", 1), ("unload", 1), ("load", 1)]


async def test_breaking_off_ends_requests_that_run_and_those_that_wait() -> None:
    async with ServiceHarness(max_models=2).running() as house:
        running = [await house.holding(model_id).started() for model_id in (1, 1, 2)]
        waiting = house.holding(3)
        await settle()
        house.scheduler.break_off()
        assert all(holder.revoked for holder in (*running, waiting))
        await asyncio.gather(*(holder.task for holder in (*running, waiting)))


async def test_draining_lasts_as_long_as_requests_do() -> None:
    async with ServiceHarness().running() as house:
        request = await house.holding(1).started()
        draining = asyncio.create_task(house.scheduler.drain(600.0, lambda: False))
        await settle()
        assert not draining.done()
        await request.end()
        async with asyncio.timeout(30):
            await draining


async def test_draining_is_bounded_and_can_be_hurried() -> None:
    async with ServiceHarness().running() as house:
        request = await house.holding(1).started()
        async with asyncio.timeout(30):
            await house.scheduler.drain(0.01, lambda: False)
            await house.scheduler.drain(60.0, lambda: True)
        await request.end()


async def test_models_unused_for_the_time_to_live_are_unloaded() -> None:
    async with ServiceHarness(idle_ttl_s=0.1).running() as house:
        house.pin(2)
        await house.use(2)
        busy = await house.holding(3).started()
        await house.use(1)
        async with asyncio.timeout(30):
            while house.status(1) is not ModelStatus.UNLOADED:
                await asyncio.sleep(0.01)
        assert house.status(2) is ModelStatus.READY
        assert house.status(3) is ModelStatus.READY
        await busy.end()


async def test_a_models_own_time_to_live_replaces_everybodys() -> None:
    async with ServiceHarness(idle_ttl_s=0.1).running() as house:
        house.models = tuple(replace(m, options={"idle-ttl": 0}) if m.id == 2 else m for m in house.models)
        await house.use(2)
        await house.use(1)
        async with asyncio.timeout(30):
            while house.status(1) is not ModelStatus.UNLOADED:
                await asyncio.sleep(0.01)
        assert house.status(2) is ModelStatus.READY, "0 is never"
        house.models = tuple(replace(m, options={"idle-ttl": 0.05}) if m.id == 2 else m for m in house.models)
        await house.use(2)
        async with asyncio.timeout(30):
            while house.status(2) is not ModelStatus.UNLOADED:
                await asyncio.sleep(0.01)


async def test_many_clients_many_models_one_place_each_gets_an_answer() -> None:
    async with ServiceHarness(max_models=2).running() as house:
        async with asyncio.timeout(30):
            await asyncio.gather(*(house.use(n % 4 + 1) for n in range(200)))
        assert len(house.scheduler.loaded()) <= 2
        assert all(house.scheduler.in_flight(n) == 0 for n in range(1, 5))


# --- the queue ----------------------------------------------------------------------------------


async def test_a_waiting_model_is_overtaken_for_the_bound_and_not_longer() -> None:
    async with ServiceHarness(max_models=1, fairness_s=0.1).running() as house:
        running = await house.holding(1).started()
        waiting = house.holding(2)
        await settle()
        overtaking = await house.holding(1).started()
        async with asyncio.timeout(30):
            while house.scheduler.is_ready(house.model(1)):
                await asyncio.sleep(0.01)
        late = house.holding(1)
        await settle()
        assert not late.is_running
        await running.end()
        await overtaking.end()
        await (await waiting.started()).end()
        await (await late.started()).end()
        assert [model_id for call, model_id in house.engine.calls if call == "load"] == [1, 2, 1]


async def test_endless_overlapping_requests_do_not_keep_another_model_out() -> None:
    async with ServiceHarness(max_models=1, fairness_s=0.1).running() as house:

        async def overlapping() -> None:
            while True:
                async with house.scheduler.lease(house.model(1)):
                    await asyncio.sleep(0.02)

        endless = [asyncio.create_task(overlapping())]
        await asyncio.sleep(0.01)
        endless.append(asyncio.create_task(overlapping()))
        async with asyncio.timeout(30):
            await house.use(2)
        for task in endless:
            task.cancel()
        await asyncio.gather(*endless, return_exceptions=True)


async def test_a_closed_model_opens_again_when_the_waiting_client_has_left() -> None:
    async with ServiceHarness(max_models=1, fairness_s=0.0).running() as house:
        running = await house.holding(1).started()
        waiting = house.holding(2)
        await settle()
        assert not house.scheduler.is_ready(house.model(1))
        late = house.holding(1)
        await settle()
        assert not late.is_running
        waiting.task.cancel()
        await (await late.started()).end()
        assert house.scheduler.is_ready(house.model(1))
        await running.end()
        assert house.engine.calls == [("load", 1)]


async def test_what_has_queued_for_a_model_is_served_in_one_turn() -> None:
    async with ServiceHarness(max_models=1).running() as house:
        first = await house.holding(1).started()
        queued = [house.holding(2 + n % 2) for n in range(6)]
        await settle()
        await first.end()
        second = [await holder.started() for holder in queued[::2]]
        await asyncio.gather(*(holder.end() for holder in second))
        third = [await holder.started() for holder in queued[1::2]]
        await asyncio.gather(*(holder.end() for holder in third))
        assert [model_id for call, model_id in house.engine.calls if call == "load"] == [1, 2, 3]


async def test_a_full_queue_says_when_to_come_back() -> None:
    async with ServiceHarness(max_models=1, queue_limit=2, fairness_s=20.0).running() as house:
        running = await house.holding(1).started()
        waiting = [house.holding(2), house.holding(2)]
        await settle()
        with pytest.raises(Overloaded, match="2 requests wait for model 'm2'") as refusal:
            await house.use(2)
        assert 18 <= refusal.value.retry_after_s <= 20
        another = house.holding(3)
        await running.end()
        for holder in (*waiting, another):
            await (await holder.started()).end()


async def test_an_explicit_load_goes_before_requests() -> None:
    async with ServiceHarness(max_models=1).running() as house:
        running = await house.holding(1).started()
        request = house.holding(2)
        await settle()
        loading = asyncio.create_task(house.scheduler.load(house.model(3)))
        await settle()
        await running.end()
        assert (await loading).status is ModelStatus.READY
        await (await request.started()).end()
        assert [model_id for call, model_id in house.engine.calls if call == "load"] == [1, 3, 2]


async def test_loading_a_ready_model_does_not_wait_for_others_turns() -> None:
    async with ServiceHarness(max_models=1, fairness_s=0.0).running() as house:
        running = await house.holding(1).started()
        waiting = house.holding(2)
        await settle()
        assert (await house.scheduler.load(house.model(1))).status is ModelStatus.READY
        await running.end()
        await (await waiting.started()).end()


async def test_a_waiting_request_knows_its_position_and_leaves_no_trace() -> None:
    async with ServiceHarness(max_models=1).running() as house:
        running = await house.holding(1).started()
        assert house.scheduler.runtime(1).queue is None
        waiting = [house.holding(2), house.holding(2), house.holding(3)]
        await settle()
        second, third = house.scheduler.runtime(2), house.scheduler.runtime(3)
        assert (second.status, third.status) == (ModelStatus.QUEUED, ModelStatus.QUEUED)
        assert second.queue is not None
        assert third.queue is not None
        assert (second.queue.position, second.queue.requests) == (1, 2)
        assert (third.queue.position, third.queue.requests) == (2, 1)
        assert "all places are taken" in second.queue.reason
        assert abs(second.queue.since_ms - time.time() * 1000) < 5000
        assert {runtime.model_id for runtime in house.scheduler.runtimes()} == {1, 2, 3}
        for holder in waiting:
            holder.task.cancel()
        await asyncio.gather(*(holder.task for holder in waiting), return_exceptions=True)
        assert house.scheduler.runtime(2) == ModelRuntime(2)
        assert {runtime.model_id for runtime in house.scheduler.runtimes()} == {1}
        await running.end()
        assert house.engine.calls == [("load", 1)]


async def test_waiting_is_announced_and_so_is_its_end() -> None:
    async with ServiceHarness(max_models=1).running() as house:
        running = await house.holding(1).started()
        waiting = house.holding(2)
        await settle()
        await running.end()
        await (await waiting.started()).end()
        await settle()
        statuses = [change.runtime.status for change in house.changes if change.runtime.model_id == 2]
        assert list(dict.fromkeys(statuses)) == [ModelStatus.QUEUED, ModelStatus.LOADING, ModelStatus.READY]
        assert house.scheduler.runtime(2).queue is None


async def test_a_model_whose_last_client_left_the_queue_is_announced_as_unloaded() -> None:
    async with ServiceHarness(max_models=1).running() as house:
        running = await house.holding(1).started()
        gone = house.holding(2)
        await settle()
        gone.task.cancel()
        await settle()
        seen = [(c.previous.status, c.runtime.status) for c in house.changes if c.runtime.model_id == 2]
        assert seen == [(ModelStatus.UNLOADED, ModelStatus.QUEUED), (ModelStatus.QUEUED, ModelStatus.UNLOADED)]
        await running.end()


async def test_a_queued_model_that_cannot_load_is_not_shown_as_queued_for_ever() -> None:
    async with ServiceHarness(max_models=1).running() as house:
        running = await house.holding(1).started()
        waiting = house.holding(2)
        await settle()
        house.spec_error = InvalidInput("options", "are wrong")
        await running.end()
        with pytest.raises(InvalidInput):
            await waiting.task
        await settle()
        assert house.changes[-1].runtime == ModelRuntime(2)


async def test_a_model_that_loads_at_once_is_never_shown_as_queued() -> None:
    async with ServiceHarness().running() as house:
        await house.use(1)
        await settle()
        assert [change.runtime.status for change in house.changes] == [ModelStatus.LOADING, ModelStatus.READY]


async def test_unloading_a_queued_model_takes_it_out_of_the_queue() -> None:
    async with ServiceHarness(max_models=1).running() as house:
        running = await house.holding(1).started()
        waiting = house.holding(2)
        await settle()
        assert (await house.scheduler.unload(house.model(2))).status is ModelStatus.UNLOADED
        with pytest.raises(Unavailable, match="'m2' was unloaded while it waited"):
            await waiting.task
        await running.end()
        assert ("load", 2) not in house.engine.calls


async def test_pinning_the_model_others_wait_for_tells_them() -> None:
    async with ServiceHarness(max_models=1).running() as house:
        running = await house.holding(1).started()
        waiting = house.holding(2)
        await settle()
        house.pin(1)
        await running.end()
        with pytest.raises(Overloaded, match="pinned"):
            await waiting.task


async def test_a_raised_limit_holds_at_once() -> None:
    async with ServiceHarness(max_models=1).running() as house:
        running = await house.holding(1).started()
        waiting = house.holding(2)
        await settle()
        house.settings = make_settings(max_models=2)
        house.bus.publish(SettingsChanged(("maxModels",)))
        await (await waiting.started()).end()
        await running.end()


async def test_breaking_off_says_why() -> None:
    async with ServiceHarness().running() as house:
        request = await house.holding(1).started()
        house.scheduler.break_off("The engine was stopped.")
        await request.task
        assert str(request.revoked) == "The engine was stopped."


async def test_clients_that_come_and_go_at_random_leave_nothing_behind() -> None:
    chance = random.Random(1)
    async with ServiceHarness(max_models=2, fairness_s=0.01).running() as house:

        async def use(model_id: int, for_s: float) -> None:
            async with house.scheduler.lease(house.model(model_id)):
                await asyncio.sleep(for_s)

        tasks = []
        for _ in range(300):
            tasks.append(asyncio.create_task(use(chance.randint(1, 4), chance.uniform(0, 0.01))))
            await asyncio.sleep(chance.uniform(0, 0.002))
            chance.choice(tasks).cancel()
        async with asyncio.timeout(30):
            results = await asyncio.gather(*tasks, return_exceptions=True)
        assert {type(result) for result in results} == {type(None), asyncio.CancelledError}
        await settle()
        assert all(house.scheduler.in_flight(n) == 0 and house.scheduler.runtime(n).queue is None for n in range(1, 5))
        assert all(house.scheduler.is_ready(house.model(n)) for n in house.scheduler.loaded())
        assert len(house.scheduler.loaded()) == 2


async def test_who_waited_too_long_leaves_no_trace() -> None:
    async with ServiceHarness(max_models=1, queue_timeout_s=0.05, fairness_s=0.0).running() as house:
        running = await house.holding(1).started()
        with pytest.raises(DeadlineExceeded):
            await house.use(2)
        assert house.scheduler.runtime(2) == ModelRuntime(2)
        assert house.scheduler.is_ready(house.model(1))
        await running.end()
