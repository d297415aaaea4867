from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import pytest
from msgspec.structs import replace

from llama_async_proxy.errors import DeadlineExceeded, InvalidInput, LoadFailed, Overloaded, ServiceError, Unavailable
from llama_async_proxy.events import EventBus, ModelRuntimeChanged, SettingsChanged
from llama_async_proxy.inference.scheduling.scheduler import ModelScheduler
from llama_async_proxy.inference.scheduling.snapshot import SchedulerContext
from llama_async_proxy.records.models import Model
from llama_async_proxy.records.options import OptionValue
from llama_async_proxy.records.runtime import Endpoint, LaunchSpec, ModelRuntime, ModelStatus
from support.upstream import RunningEngine, make_model, make_settings, make_spec


class SchedulerHarness:
    """Scheduler of models 1 to 4 with their engine; its task runs."""

    def __init__(self, **settings: Any) -> None:
        self.settings = make_settings(**settings)
        self.models = tuple(make_model(n, f"m{n}") for n in range(1, 5))
        self.bus = EventBus()
        self.used: list[int] = []
        self.changes: list[ModelRuntimeChanged] = []
        self.spec_error: ServiceError | None = None

    @asynccontextmanager
    async def running(self) -> AsyncIterator[SchedulerHarness]:
        self.engine = RunningEngine(self.bus, {m.id: Endpoint("127.0.0.1", 10_000 + m.id) for m in self.models})
        self.scheduler = self.build()
        background = [asyncio.create_task(self.scheduler.run()), asyncio.create_task(self._collect())]
        await asyncio.sleep(0)  # Let them subscribe before anything happens.
        yield self
        for task in background:
            task.cancel()
        await asyncio.gather(*background, return_exceptions=True)

    def build(self) -> ModelScheduler:
        return ModelScheduler(
            self.engine,
            SchedulerContext(
                settings=lambda: self.settings,
                models=lambda: self.models,
                spec_for=self._spec_for,
                on_use=lambda model_id, _: self.used.append(model_id),
            ),
            self.bus,
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
    """A request that runs in its own task until `end` is called."""

    def __init__(self, harness: SchedulerHarness, model_id: int) -> None:
        self.revoked: ServiceError | None = None
        self._running = asyncio.Event()
        self._may_end = asyncio.Event()
        self.task = asyncio.create_task(self._hold(harness, model_id))

    async def _hold(self, harness: SchedulerHarness, model_id: int) -> None:
        async with harness.scheduler.lease(harness.model(model_id), self._revoke):
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


async def test_a_request_loads_its_model_and_gets_its_endpoint() -> None:
    async with SchedulerHarness().running() as harness, harness.scheduler.lease(harness.model(1)) as lease:
        assert lease.endpoint == Endpoint("127.0.0.1", 10_001)
        assert lease.load_s is not None
        assert harness.used == [1]
        assert harness.scheduler.in_flight(1) == 1
        assert harness.scheduler.loaded() == (1,)
    assert harness.scheduler.in_flight(1) == 0


async def test_a_ready_model_is_leased_at_once() -> None:
    async with SchedulerHarness().running() as harness:
        await harness.use(1)
        async with harness.scheduler.lease(harness.model(1)) as lease:
            assert (lease.queued_s, lease.load_s) == (None, None)
        assert harness.engine.calls == [("load", 1)]


async def test_many_requests_share_one_load() -> None:
    async with SchedulerHarness().running() as harness:
        harness.engine.gate.clear()
        requests = [asyncio.create_task(harness.use(1)) for _ in range(10)]
        await settle()
        assert not any(request.done() for request in requests)
        harness.engine.gate.set()
        await asyncio.gather(*requests)
        assert harness.engine.calls == [("load", 1)]


async def test_the_least_recently_used_idle_model_makes_room() -> None:
    async with SchedulerHarness(max_models=2).running() as harness:
        await harness.use(1)
        await harness.use(2)
        await harness.use(1)
        await harness.use(3)
        assert harness.engine.calls[2:] == [("unload", 2), ("load", 3)]
        assert harness.status(1) is ModelStatus.READY


async def test_a_busy_model_is_never_evicted_and_the_next_request_waits_for_it() -> None:
    async with SchedulerHarness(max_models=1).running() as harness:
        first = await harness.holding(1).started()
        second = harness.holding(2)
        await settle()
        assert not second.is_running
        assert harness.status(1) is ModelStatus.READY
        await first.end()
        await second.started()
        assert harness.status(1) is ModelStatus.UNLOADED
        await second.end()


async def test_waiting_requests_are_served_first_come_first_served() -> None:
    async with SchedulerHarness(max_models=1).running() as harness:
        first = await harness.holding(1).started()
        others = [harness.holding(model_id) for model_id in (2, 3, 4)]
        await settle()
        await first.end()
        for holder in others:
            await holder.started()
            await holder.end()
        assert [model_id for call, model_id in harness.engine.calls if call == "load"] == [1, 2, 3, 4]


async def test_a_request_for_a_model_that_is_loading_does_not_queue_behind_others() -> None:
    async with SchedulerHarness(max_models=2).running() as harness:
        busy = await harness.holding(1).started()
        harness.engine.gate.clear()
        loading = harness.holding(2)
        await settle()
        no_place = harness.holding(3)
        joining = harness.holding(2)
        await settle()
        harness.engine.gate.set()
        await joining.started()
        assert not no_place.is_running
        for holder in (busy, loading, joining, no_place):
            await holder.end()


async def test_a_client_that_left_the_queue_starts_no_load() -> None:
    async with SchedulerHarness(max_models=1).running() as harness:
        first = await harness.holding(1).started()
        gone = harness.holding(2)
        await settle()
        gone.task.cancel()
        await asyncio.gather(gone.task, return_exceptions=True)
        third = harness.holding(3)
        await first.end()
        await third.started()
        assert ("load", 2) not in harness.engine.calls
        assert harness.scheduler.in_flight(2) == 0
        await third.end()


async def test_a_load_goes_on_when_the_client_that_began_it_leaves() -> None:
    async with SchedulerHarness().running() as harness:
        harness.engine.gate.clear()
        began, joined = harness.holding(1), harness.holding(1)
        await settle()
        began.task.cancel()
        harness.engine.gate.set()
        await joined.started()
        assert harness.scheduler.in_flight(1) == 1
        await joined.end()


async def test_a_model_that_just_came_up_is_not_evicted_before_its_request_began() -> None:
    async with SchedulerHarness(max_models=1).running() as harness:
        harness.engine.gate.clear()
        first, second = harness.holding(1), harness.holding(2)
        await settle()
        harness.engine.gate.set()
        await first.started()
        assert not second.is_running
        await first.end()
        await (await second.started()).end()


async def test_a_place_freed_by_a_crash_is_given_to_the_next_model() -> None:
    async with SchedulerHarness(max_models=1).running() as harness:
        await harness.scheduler.load(harness.model(1))
        harness.engine.gate.clear()
        harness.engine._set(1, ModelStatus.LOADING)  # the engine restarts it by itself
        waiting = harness.holding(2)
        await settle()
        harness.engine.crash(1)
        harness.engine.gate.set()
        await (await waiting.started()).end()


async def test_waiting_for_a_place_ends_after_the_load_timeout() -> None:
    async with SchedulerHarness(max_models=1, queue_timeout_s=0.05).running() as harness:
        first = await harness.holding(1).started()
        with pytest.raises(DeadlineExceeded, match=r"'m2' waited 0\.05 s"):
            await harness.use(2)
        await first.end()


async def test_pinned_models_stay_and_the_error_says_so() -> None:
    async with SchedulerHarness(max_models=1).running() as harness:
        harness.pin(1)
        await harness.use(1)
        with pytest.raises(Overloaded, match="pinned"):
            await harness.use(2)


async def test_a_failed_load_reaches_every_waiting_request_and_frees_the_place() -> None:
    async with SchedulerHarness(max_models=1).running() as harness:
        harness.engine.failure = LoadFailed("out of memory", exit_code=1)
        results = await asyncio.gather(*(harness.use(1) for _ in range(3)), return_exceptions=True)
        assert [str(result) for result in results] == ["out of memory"] * 3
        harness.engine.failure = None
        await harness.use(2)


async def test_loading_on_request_can_be_off() -> None:
    async with SchedulerHarness(load_on_request=False).running() as harness:
        with pytest.raises(InvalidInput, match="'m1' is not loaded"):
            await harness.use(1)
        await harness.scheduler.load(harness.model(1))
        await harness.use(1)


async def test_a_request_joins_an_explicit_load_even_when_loading_on_request_is_off() -> None:
    async with SchedulerHarness(load_on_request=False).running() as harness:
        harness.engine.gate.clear()
        loading = asyncio.create_task(harness.scheduler.load(harness.model(1)))
        await settle()
        request = harness.holding(1)
        harness.engine.gate.set()
        await (await request.started()).end()
        assert (await loading).status is ModelStatus.READY


async def test_unloading_waits_for_running_requests() -> None:
    async with SchedulerHarness(drain_s=5.0).running() as harness:
        request = await harness.holding(1).started()
        unloading = asyncio.create_task(harness.scheduler.unload(harness.model(1)))
        await settle()
        assert not unloading.done()
        assert not harness.scheduler.is_ready(harness.model(1))
        await request.end()
        assert (await unloading).status is ModelStatus.UNLOADED


async def test_unloading_revokes_requests_after_the_drain_time() -> None:
    async with SchedulerHarness(drain_s=0.05).running() as harness:
        request = await harness.holding(1).started()
        await harness.scheduler.unload(harness.model(1))
        assert request.task.done()
        assert "'m1' was unloaded" in str(request.revoked)
        assert harness.status(1) is ModelStatus.UNLOADED


async def test_a_request_during_an_unload_waits_and_loads_anew() -> None:
    async with SchedulerHarness(drain_s=5.0).running() as harness:
        old = await harness.holding(1).started()
        unloading = asyncio.create_task(harness.scheduler.unload(harness.model(1)))
        await settle()
        new = harness.holding(1)
        await settle()
        assert not new.is_running
        await old.end()
        await unloading
        await (await new.started()).end()
        assert harness.engine.calls == [("load", 1), ("unload", 1), ("load", 1)]


async def test_revoking_all_ends_running_and_waiting_requests() -> None:
    async with SchedulerHarness(max_models=2).running() as harness:
        running = [await harness.holding(model_id).started() for model_id in (1, 1, 2)]
        waiting = harness.holding(3)
        await settle()
        harness.scheduler.revoke_all()
        assert all(holder.revoked for holder in (*running, waiting))
        await asyncio.gather(*(holder.task for holder in (*running, waiting)))


async def test_draining_lasts_as_long_as_requests_do() -> None:
    async with SchedulerHarness().running() as harness:
        request = await harness.holding(1).started()
        draining = asyncio.create_task(harness.scheduler.drain(600.0, lambda: False))
        await settle()
        assert not draining.done()
        await request.end()
        async with asyncio.timeout(30):
            await draining


async def test_draining_is_bounded_and_can_be_forced() -> None:
    async with SchedulerHarness().running() as harness:
        request = await harness.holding(1).started()
        async with asyncio.timeout(30):
            await harness.scheduler.drain(0.01, lambda: False)
            await harness.scheduler.drain(60.0, lambda: True)
        await request.end()


async def test_models_unused_for_the_time_to_live_are_unloaded() -> None:
    async with SchedulerHarness(idle_ttl_s=0.1).running() as harness:
        harness.pin(2)
        await harness.use(2)
        busy = await harness.holding(3).started()
        await harness.use(1)
        async with asyncio.timeout(30):
            while harness.status(1) is not ModelStatus.UNLOADED:
                await asyncio.sleep(0.01)
        assert harness.status(2) is ModelStatus.READY
        assert harness.status(3) is ModelStatus.READY
        await busy.end()


async def test_a_models_own_time_to_live_replaces_the_setting() -> None:
    async with SchedulerHarness(idle_ttl_s=0.1).running() as harness:
        harness.models = tuple(replace(m, options={"idle-ttl": 0}) if m.id == 2 else m for m in harness.models)
        await harness.use(2)
        await harness.use(1)
        async with asyncio.timeout(30):
            while harness.status(1) is not ModelStatus.UNLOADED:
                await asyncio.sleep(0.01)
        assert harness.status(2) is ModelStatus.READY, "0 means never"
        harness.models = tuple(replace(m, options={"idle-ttl": 0.05}) if m.id == 2 else m for m in harness.models)
        await harness.use(2)
        async with asyncio.timeout(30):
            while harness.status(2) is not ModelStatus.UNLOADED:
                await asyncio.sleep(0.01)


async def test_many_clients_many_models_one_place_each_gets_an_answer() -> None:
    async with SchedulerHarness(max_models=2).running() as harness:
        async with asyncio.timeout(30):
            await asyncio.gather(*(harness.use(n % 4 + 1) for n in range(200)))
        assert len(harness.scheduler.loaded()) <= 2
        assert all(harness.scheduler.in_flight(n) == 0 for n in range(1, 5))


# --- the queue ----------------------------------------------------------------------------------


async def test_a_waiting_model_is_overtaken_for_the_bound_and_not_longer() -> None:
    async with SchedulerHarness(max_models=1, fairness_s=0.1).running() as harness:
        running = await harness.holding(1).started()
        waiting = harness.holding(2)
        await settle()
        overtaking = await harness.holding(1).started()
        async with asyncio.timeout(30):
            while harness.scheduler.is_ready(harness.model(1)):
                await asyncio.sleep(0.01)
        late = harness.holding(1)
        await settle()
        assert not late.is_running
        await running.end()
        await overtaking.end()
        await (await waiting.started()).end()
        await (await late.started()).end()
        assert [model_id for call, model_id in harness.engine.calls if call == "load"] == [1, 2, 1]


async def test_endless_overlapping_requests_do_not_keep_another_model_out() -> None:
    async with SchedulerHarness(max_models=1, fairness_s=0.1).running() as harness:

        async def overlapping() -> None:
            while True:
                async with harness.scheduler.lease(harness.model(1)):
                    await asyncio.sleep(0.02)

        endless = [asyncio.create_task(overlapping())]
        await asyncio.sleep(0.01)
        endless.append(asyncio.create_task(overlapping()))
        async with asyncio.timeout(30):
            await harness.use(2)
        for task in endless:
            task.cancel()
        await asyncio.gather(*endless, return_exceptions=True)


async def test_a_draining_model_admits_again_when_the_waiting_client_has_left() -> None:
    async with SchedulerHarness(max_models=1, fairness_s=0.0).running() as harness:
        running = await harness.holding(1).started()
        waiting = harness.holding(2)
        await settle()
        assert not harness.scheduler.is_ready(harness.model(1))
        late = harness.holding(1)
        await settle()
        assert not late.is_running
        waiting.task.cancel()
        await (await late.started()).end()
        assert harness.scheduler.is_ready(harness.model(1))
        await running.end()
        assert harness.engine.calls == [("load", 1)]


async def test_all_queued_requests_of_a_model_are_served_in_one_turn() -> None:
    async with SchedulerHarness(max_models=1).running() as harness:
        first = await harness.holding(1).started()
        queued = [harness.holding(2 + n % 2) for n in range(6)]
        await settle()
        await first.end()
        second = [await holder.started() for holder in queued[::2]]
        await asyncio.gather(*(holder.end() for holder in second))
        third = [await holder.started() for holder in queued[1::2]]
        await asyncio.gather(*(holder.end() for holder in third))
        assert [model_id for call, model_id in harness.engine.calls if call == "load"] == [1, 2, 3]


async def test_a_full_queue_says_when_to_retry() -> None:
    async with SchedulerHarness(max_models=1, queue_limit=2, fairness_s=20.0).running() as harness:
        running = await harness.holding(1).started()
        waiting = [harness.holding(2), harness.holding(2)]
        await settle()
        with pytest.raises(Overloaded, match="2 requests wait for model 'm2'") as refusal:
            await harness.use(2)
        assert 18 <= refusal.value.retry_after_s <= 20
        another = harness.holding(3)
        await running.end()
        for holder in (*waiting, another):
            await (await holder.started()).end()


async def test_an_explicit_load_goes_before_requests() -> None:
    async with SchedulerHarness(max_models=1).running() as harness:
        running = await harness.holding(1).started()
        request = harness.holding(2)
        await settle()
        loading = asyncio.create_task(harness.scheduler.load(harness.model(3)))
        await settle()
        await running.end()
        assert (await loading).status is ModelStatus.READY
        await (await request.started()).end()
        assert [model_id for call, model_id in harness.engine.calls if call == "load"] == [1, 3, 2]


async def test_loading_a_ready_model_does_not_wait_for_others_turns() -> None:
    async with SchedulerHarness(max_models=1, fairness_s=0.0).running() as harness:
        running = await harness.holding(1).started()
        waiting = harness.holding(2)
        await settle()
        assert (await harness.scheduler.load(harness.model(1))).status is ModelStatus.READY
        await running.end()
        await (await waiting.started()).end()


async def test_a_waiting_request_knows_its_position_and_leaves_no_trace() -> None:
    async with SchedulerHarness(max_models=1).running() as harness:
        running = await harness.holding(1).started()
        assert harness.scheduler.runtime(1).queue is None
        waiting = [harness.holding(2), harness.holding(2), harness.holding(3)]
        await settle()
        second, third = harness.scheduler.runtime(2), harness.scheduler.runtime(3)
        assert (second.status, third.status) == (ModelStatus.QUEUED, ModelStatus.QUEUED)
        assert second.queue is not None
        assert third.queue is not None
        assert (second.queue.position, second.queue.requests) == (1, 2)
        assert (third.queue.position, third.queue.requests) == (2, 1)
        assert "all places are taken" in second.queue.reason
        assert abs(second.queue.since_ms - time.time() * 1000) < 5000
        assert {runtime.model_id for runtime in harness.scheduler.runtimes()} == {1, 2, 3}
        for holder in waiting:
            holder.task.cancel()
        await asyncio.gather(*(holder.task for holder in waiting), return_exceptions=True)
        assert harness.scheduler.runtime(2) == ModelRuntime(2)
        assert {runtime.model_id for runtime in harness.scheduler.runtimes()} == {1}
        await running.end()
        assert harness.engine.calls == [("load", 1)]


async def test_the_begin_and_end_of_waiting_are_published() -> None:
    async with SchedulerHarness(max_models=1).running() as harness:
        running = await harness.holding(1).started()
        waiting = harness.holding(2)
        await settle()
        await running.end()
        await (await waiting.started()).end()
        await settle()
        statuses = [change.runtime.status for change in harness.changes if change.runtime.model_id == 2]
        assert list(dict.fromkeys(statuses)) == [ModelStatus.QUEUED, ModelStatus.LOADING, ModelStatus.READY]
        assert harness.scheduler.runtime(2).queue is None


async def test_a_model_whose_last_client_left_the_queue_is_published_as_unloaded() -> None:
    async with SchedulerHarness(max_models=1).running() as harness:
        running = await harness.holding(1).started()
        gone = harness.holding(2)
        await settle()
        gone.task.cancel()
        await settle()
        seen = [(c.previous.status, c.runtime.status) for c in harness.changes if c.runtime.model_id == 2]
        assert seen == [(ModelStatus.UNLOADED, ModelStatus.QUEUED), (ModelStatus.QUEUED, ModelStatus.UNLOADED)]
        await running.end()


async def test_a_queued_model_that_cannot_load_is_not_shown_as_queued_for_ever() -> None:
    async with SchedulerHarness(max_models=1).running() as harness:
        running = await harness.holding(1).started()
        waiting = harness.holding(2)
        await settle()
        harness.spec_error = InvalidInput("options", "are wrong")
        await running.end()
        with pytest.raises(InvalidInput):
            await waiting.task
        await settle()
        assert harness.changes[-1].runtime == ModelRuntime(2)


async def test_a_model_that_loads_at_once_is_never_shown_as_queued() -> None:
    async with SchedulerHarness().running() as harness:
        await harness.use(1)
        await settle()
        assert [change.runtime.status for change in harness.changes] == [ModelStatus.LOADING, ModelStatus.READY]


async def test_unloading_a_queued_model_takes_it_out_of_the_queue() -> None:
    async with SchedulerHarness(max_models=1).running() as harness:
        running = await harness.holding(1).started()
        waiting = harness.holding(2)
        await settle()
        assert (await harness.scheduler.unload(harness.model(2))).status is ModelStatus.UNLOADED
        with pytest.raises(Unavailable, match="'m2' was unloaded while it waited"):
            await waiting.task
        await running.end()
        assert ("load", 2) not in harness.engine.calls


async def test_pinning_the_running_model_refuses_the_waiting_requests() -> None:
    async with SchedulerHarness(max_models=1).running() as harness:
        running = await harness.holding(1).started()
        waiting = harness.holding(2)
        await settle()
        harness.pin(1)
        await running.end()
        with pytest.raises(Overloaded, match="pinned"):
            await waiting.task


async def test_a_raised_limit_holds_at_once() -> None:
    async with SchedulerHarness(max_models=1).running() as harness:
        running = await harness.holding(1).started()
        waiting = harness.holding(2)
        await settle()
        harness.settings = make_settings(max_models=2)
        harness.bus.publish(SettingsChanged(("maxModels",)))
        await (await waiting.started()).end()
        await running.end()


async def test_revoked_requests_get_the_reason() -> None:
    async with SchedulerHarness().running() as harness:
        request = await harness.holding(1).started()
        harness.scheduler.revoke_all("The engine was stopped.")
        await request.task
        assert str(request.revoked) == "The engine was stopped."


async def test_clients_that_come_and_go_at_random_leave_nothing_behind() -> None:
    chance = random.Random(1)
    async with SchedulerHarness(max_models=2, fairness_s=0.01).running() as harness:

        async def use(model_id: int, for_s: float) -> None:
            async with harness.scheduler.lease(harness.model(model_id)):
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
        assert all(
            harness.scheduler.in_flight(n) == 0 and harness.scheduler.runtime(n).queue is None for n in range(1, 5)
        )
        assert all(harness.scheduler.is_ready(harness.model(n)) for n in harness.scheduler.loaded())
        assert len(harness.scheduler.loaded()) == 2


async def test_a_request_whose_wait_timed_out_leaves_no_trace() -> None:
    async with SchedulerHarness(max_models=1, queue_timeout_s=0.05, fairness_s=0.0).running() as harness:
        running = await harness.holding(1).started()
        with pytest.raises(DeadlineExceeded):
            await harness.use(2)
        assert harness.scheduler.runtime(2) == ModelRuntime(2)
        assert harness.scheduler.is_ready(harness.model(1))
        await running.end()
