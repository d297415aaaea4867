from __future__ import annotations

from llama_async_proxy.inference.scheduling.memory import UNKNOWN_MEMORY, groups_of, limits_of, taken, together
from llama_async_proxy.inference.scheduling.policy import UNLIMITED, Group, Limits
from llama_async_proxy.records.runtime import Endpoint, MemoryUse, ModelRuntime, ModelStatus
from support.upstream import make_model, make_settings


def test_what_was_measured_replaces_what_was_foretold() -> None:
    foretold, at = MemoryUse(7, 7), Endpoint("127.0.0.1", 1)
    assert taken(None, foretold) == foretold
    assert taken(ModelRuntime(1, ModelStatus.LOADING, rss_bytes=3), foretold) == foretold
    ready = ModelRuntime(1, ModelStatus.READY, endpoint=at)
    assert taken(ready, foretold) == foretold
    counted = ModelRuntime(1, ModelStatus.READY, endpoint=at, rss_bytes=3, memory=MemoryUse(5, 6))
    assert taken(counted, foretold) == MemoryUse(5, 6)
    grown = ModelRuntime(1, ModelStatus.READY, endpoint=at, rss_bytes=9)
    assert taken(grown, foretold) == MemoryUse(9, 7)


def test_a_group_knows_its_models_by_every_name() -> None:
    models = (make_model(1, "a", aliases=("first",)), make_model(2, "b"))
    setting = {"g": {"models": ["FIRST", "b", "gone"], "together": True}}
    assert groups_of(setting, models) == (Group(frozenset({1, 2}), together=True),)


def test_uses_add_up_for_the_machine_and_for_each_gpu() -> None:
    assert together([]) == MemoryUse(0)
    assert together([MemoryUse(1, 2, (2,)), MemoryUse(3), MemoryUse(5, 7, (3, 4))]) == MemoryUse(9, 9, (5, 4))


def test_the_limits_are_those_of_the_settings_and_of_the_machine() -> None:
    groups = {"g": {"models": ["a", "b"], "together": False}}
    settings = make_settings(max_models=3, fairness_s=20.0, groups=groups)
    limits = limits_of(settings, (make_model(1, "a"), make_model(2, "b")), UNKNOWN_MEMORY)
    assert limits == Limits(3, 20.0, UNLIMITED, UNLIMITED, (Group(frozenset({1, 2})),))
    assert limits_of(make_settings(max_models=0, fairness_s=1.0), (), UNKNOWN_MEMORY) == Limits(0, 1.0)
