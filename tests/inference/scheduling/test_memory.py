from __future__ import annotations

from llama_async_proxy.inference.scheduling.memory import (
    NO_ESTIMATES,
    groups_from,
    limits_from,
    memory_in_use,
    total_memory,
)
from llama_async_proxy.inference.scheduling.policy import UNLIMITED, Group, Limits
from llama_async_proxy.records.runtime import Endpoint, MemoryUse, ModelRuntime, ModelStatus
from support.upstream import make_model, make_settings


def test_measured_memory_replaces_the_estimate() -> None:
    estimated, at = MemoryUse(7, 7), Endpoint("127.0.0.1", 1)
    assert memory_in_use(None, estimated) == estimated
    assert memory_in_use(ModelRuntime(1, ModelStatus.LOADING, rss_bytes=3), estimated) == estimated
    ready = ModelRuntime(1, ModelStatus.READY, endpoint=at)
    assert memory_in_use(ready, estimated) == estimated
    counted = ModelRuntime(1, ModelStatus.READY, endpoint=at, rss_bytes=3, memory=MemoryUse(5, 6))
    assert memory_in_use(counted, estimated) == MemoryUse(5, 6)
    grown = ModelRuntime(1, ModelStatus.READY, endpoint=at, rss_bytes=9)
    assert memory_in_use(grown, estimated) == MemoryUse(9, 7)


def test_a_group_may_name_its_models_by_alias_name_or_slug() -> None:
    models = (make_model(1, "a", aliases=("first",)), make_model(2, "b"))
    setting = {"g": {"models": ["FIRST", "b", "gone"], "together": True}}
    assert groups_from(setting, models) == (Group(frozenset({1, 2}), together=True),)


def test_uses_add_up_for_the_machine_and_for_each_gpu() -> None:
    assert total_memory([]) == MemoryUse(0)
    assert total_memory([MemoryUse(1, 2, (2,)), MemoryUse(3), MemoryUse(5, 7, (3, 4))]) == MemoryUse(9, 9, (5, 4))


def test_the_limits_are_those_of_the_settings_and_of_the_machine() -> None:
    groups = {"g": {"models": ["a", "b"], "together": False}}
    settings = make_settings(max_models=3, fairness_s=20.0, groups=groups)
    limits = limits_from(settings, (make_model(1, "a"), make_model(2, "b")), NO_ESTIMATES)
    assert limits == Limits(3, 20.0, UNLIMITED, UNLIMITED, (Group(frozenset({1, 2})),))
    assert limits_from(make_settings(max_models=0, fairness_s=1.0), (), NO_ESTIMATES) == Limits(0, 1.0)
