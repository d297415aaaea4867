from __future__ import annotations

from dataclasses import replace
from typing import Any

from llama_async_proxy.inference.scheduling.lease import Lease
from llama_async_proxy.inference.scheduling.leases import Leases
from llama_async_proxy.inference.scheduling.policy import LoadedModel
from llama_async_proxy.inference.scheduling.snapshot import LoadedModels
from llama_async_proxy.records.runtime import NO_MEMORY, Endpoint, MemoryUse, ModelRuntime, ModelStatus
from support.upstream import make_model, make_settings

AT = Endpoint("127.0.0.1", 1)


class Engine:
    """What it tells is what was written down."""

    def __init__(self) -> None:
        self.known: dict[int, ModelRuntime] = {}

    def set(self, model_id: int, status: ModelStatus, **changes: Any) -> None:
        self.known[model_id] = ModelRuntime(model_id, status, **changes)

    def runtime(self, model_id: int) -> ModelRuntime:
        return self.known.get(model_id, ModelRuntime(model_id))

    def runtimes(self) -> tuple[ModelRuntime, ...]:
        return tuple(self.known.values())


class Street:
    def __init__(self) -> None:
        self.engine, self.leases = Engine(), Leases()
        self.models = tuple(make_model(n, f"m{n}") for n in (1, 2))
        self.settings = make_settings(idle_ttl_s=60.0)
        self.loaded_models = LoadedModels(
            self.engine, self.leases, settings=lambda: self.settings, models=lambda: self.models
        )

    def at(self, now_s: float) -> dict[int, LoadedModel]:
        return {resident.model_id: resident for resident in self.loaded_models.at(now_s)}


def test_who_has_a_process_or_is_about_to_is_a_resident() -> None:
    street = Street()
    street.engine.set(1, ModelStatus.LOADING)
    street.engine.set(2, ModelStatus.FAILED, error="out of memory")
    street.leases.hold(Lease(make_model(3)))
    assert street.at(1.0).keys() == {1, 3}
    assert [model_id in street.loaded_models for model_id in (1, 2, 3, 4)] == [True, False, True, False]


def test_a_turn_begins_when_a_model_first_answers_and_a_restart_begins_another() -> None:
    street = Street()
    street.engine.set(1, ModelStatus.LOADING)
    assert street.at(1.0)[1].turn_s is None
    street.engine.set(1, ModelStatus.READY, endpoint=AT)
    assert [street.at(now_s)[1].turn_s for now_s in (2.0, 3.0)] == [2.0, 2.0]
    street.engine.set(1, ModelStatus.SLEEPING, endpoint=AT)
    assert street.at(4.0)[1].turn_s == 2.0
    street.engine.set(1, ModelStatus.LOADING)
    assert street.at(5.0)[1].turn_s is None
    street.engine.set(1, ModelStatus.READY, endpoint=AT)
    assert street.at(6.0)[1].turn_s == 6.0


def test_a_model_is_busy_while_it_loads_or_somebody_uses_it() -> None:
    street = Street()
    street.engine.set(1, ModelStatus.LOADING)
    assert street.at(1.0)[1].busy
    street.engine.set(1, ModelStatus.READY, endpoint=AT)
    assert not street.at(2.0)[1].busy
    lease = Lease(street.models[0])
    street.leases.hold(lease)
    assert street.at(3.0)[1].busy
    street.leases.end(lease)
    assert not street.at(4.0)[1].busy


def test_what_is_foretold_counts_until_the_model_is_measured_and_nothing_is_kept_of_who_left() -> None:
    street = Street()
    street.loaded_models.foretold[1] = MemoryUse(7)
    street.loaded_models.leaving.add(1)
    street.engine.set(1, ModelStatus.LOADING)
    assert (street.at(1.0)[1].memory, street.at(1.0)[1].leaving) == (MemoryUse(7), True)
    street.engine.set(1, ModelStatus.READY, endpoint=AT, memory=MemoryUse(5))
    assert street.at(2.0)[1].memory == MemoryUse(5)
    street.loaded_models.forget(1)
    street.engine.set(1, ModelStatus.LOADING)
    assert street.at(3.0)[1] == LoadedModel(1, last_used_s=3.0, busy=True, memory=NO_MEMORY, idle_ttl_s=60.0)


def test_a_models_own_pin_and_time_to_live_are_told() -> None:
    street = Street()
    for model_id in (1, 2):
        street.engine.set(model_id, ModelStatus.READY, endpoint=AT)
    own = {1: replace(street.models[0], is_pinned=True), 2: replace(street.models[1], options={"idle-ttl": 0})}
    street.models = tuple(own.values())
    seen = street.at(1.0)
    assert (seen[1].pinned, seen[1].idle_ttl_s) == (True, 60.0)
    assert (seen[2].pinned, seen[2].idle_ttl_s) == (False, 0.0)
