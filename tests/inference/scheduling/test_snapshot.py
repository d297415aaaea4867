from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from llama_async_proxy.inference.scheduling.leases import Lease, Leases
from llama_async_proxy.inference.scheduling.policy import LoadedModel
from llama_async_proxy.inference.scheduling.snapshot import LoadedModels, SchedulerContext
from llama_async_proxy.records.runtime import NO_MEMORY, Endpoint, MemoryUse, ModelRuntime, ModelStatus
from support.upstream import make_model, make_settings, make_spec

AT = Endpoint("127.0.0.1", 1)


class RecordedEngine:
    """Engine whose states are set by the test."""

    def __init__(self) -> None:
        self.known: dict[int, ModelRuntime] = {}

    def set(self, model_id: int, status: ModelStatus, **changes: Any) -> None:
        self.known[model_id] = ModelRuntime(model_id, status, **changes)

    def runtime(self, model_id: int) -> ModelRuntime:
        return self.known.get(model_id, ModelRuntime(model_id))

    def runtimes(self) -> tuple[ModelRuntime, ...]:
        return tuple(self.known.values())


class SnapshotHarness:
    """The snapshot of two models, with an engine and leases that the test controls."""

    def __init__(self) -> None:
        self.engine, self.leases = RecordedEngine(), Leases()
        self.models = tuple(make_model(n, f"m{n}") for n in (1, 2))
        self.settings = make_settings(idle_ttl_s=60.0)
        self.context = SchedulerContext(
            settings=lambda: self.settings, models=lambda: self.models, spec_for=make_spec, on_use=lambda *_: None
        )
        self.loaded_models = LoadedModels(self.engine, self.leases, self.context)

    def snapshot(self, now_s: float) -> dict[int, LoadedModel]:
        return {loaded.model_id: loaded for loaded in self.loaded_models.snapshot(now_s)}


def test_models_with_a_process_or_a_lease_are_loaded() -> None:
    harness = SnapshotHarness()
    harness.engine.set(1, ModelStatus.LOADING)
    harness.engine.set(2, ModelStatus.FAILED, error="out of memory")
    harness.leases.hold(Lease(make_model(3)))
    assert harness.snapshot(1.0).keys() == {1, 3}
    assert [model_id in harness.loaded_models for model_id in (1, 2, 3, 4)] == [True, False, True, False]


def test_a_turn_begins_when_a_model_is_first_ready_and_a_restart_begins_another() -> None:
    harness = SnapshotHarness()
    harness.engine.set(1, ModelStatus.LOADING)
    assert harness.snapshot(1.0)[1].ready_since_s is None
    harness.engine.set(1, ModelStatus.READY, endpoint=AT)
    assert [harness.snapshot(now_s)[1].ready_since_s for now_s in (2.0, 3.0)] == [2.0, 2.0]
    harness.engine.set(1, ModelStatus.SLEEPING, endpoint=AT)
    assert harness.snapshot(4.0)[1].ready_since_s == 2.0
    harness.engine.set(1, ModelStatus.LOADING)
    assert harness.snapshot(5.0)[1].ready_since_s is None
    harness.engine.set(1, ModelStatus.READY, endpoint=AT)
    assert harness.snapshot(6.0)[1].ready_since_s == 6.0


def test_a_model_is_busy_while_it_loads_or_a_lease_is_held() -> None:
    harness = SnapshotHarness()
    harness.engine.set(1, ModelStatus.LOADING)
    assert harness.snapshot(1.0)[1].busy
    harness.engine.set(1, ModelStatus.READY, endpoint=AT)
    assert not harness.snapshot(2.0)[1].busy
    lease = Lease(harness.models[0])
    harness.leases.hold(lease)
    assert harness.snapshot(3.0)[1].busy
    harness.leases.end(lease)
    assert not harness.snapshot(4.0)[1].busy


def test_the_estimate_counts_until_memory_is_measured_and_is_dropped_with_the_model() -> None:
    harness = SnapshotHarness()
    harness.loaded_models.estimated[1] = MemoryUse(7)
    harness.loaded_models.unloading.add(1)
    harness.engine.set(1, ModelStatus.LOADING)
    assert (harness.snapshot(1.0)[1].memory, harness.snapshot(1.0)[1].unloading) == (MemoryUse(7), True)
    harness.engine.set(1, ModelStatus.READY, endpoint=AT, memory=MemoryUse(5))
    assert harness.snapshot(2.0)[1].memory == MemoryUse(5)
    harness.loaded_models.forget(1)
    harness.engine.set(1, ModelStatus.LOADING)
    assert harness.snapshot(3.0)[1] == LoadedModel(1, last_used_s=3.0, busy=True, memory=NO_MEMORY, idle_ttl_s=60.0)


def test_a_models_own_pin_and_time_to_live_are_used() -> None:
    harness = SnapshotHarness()
    for model_id in (1, 2):
        harness.engine.set(model_id, ModelStatus.READY, endpoint=AT)
    own = {1: replace(harness.models[0], is_pinned=True), 2: replace(harness.models[1], options={"idle-ttl": 0})}
    harness.models = tuple(own.values())
    seen = harness.snapshot(1.0)
    assert (seen[1].pinned, seen[1].idle_ttl_s) == (True, 60.0)
    assert (seen[2].pinned, seen[2].idle_ttl_s) == (False, 0.0)
