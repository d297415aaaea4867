from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from llama_async_proxy.inference.scheduling.policy import (
    Admission,
    Capacity,
    Constraint,
    Decision,
    Group,
    Limits,
    LoadedModel,
    Refusal,
    Waiter,
    WaitReason,
    admission_deadlines,
    expired,
    may_load,
    plan,
    queue_order,
    violated_constraint,
)
from llama_async_proxy.records.runtime import MemoryUse

OLD, MIDDLE, NEW = LoadedModel(1, 10.0), LoadedModel(2, 20.0), LoadedModel(3, 30.0)
BUSY, PINNED = LoadedModel(4, 0.0, busy=True), LoadedModel(5, 0.0, pinned=True)
LEAVING = LoadedModel(6, 0.0, unloading=True)
F = 30.0
ONE = Limits(1, F)


def load(target: int, loaded_models: Sequence[LoadedModel], places: int) -> Decision:
    return may_load(Waiter(target, 0.0), loaded_models, Limits(places, F))


# --- places -------------------------------------------------------------------------------------


def test_no_model_is_evicted_while_there_is_room() -> None:
    assert load(9, [OLD, NEW], 3) == Admission()


def test_without_a_limit_no_model_is_evicted() -> None:
    assert load(9, [OLD, MIDDLE, NEW], 0) == Admission()


def test_the_least_recently_used_idle_model_is_evicted() -> None:
    assert load(9, [NEW, BUSY, OLD, PINNED, MIDDLE], 5) == Admission((1,))


def test_a_lowered_limit_evicts_several_models() -> None:
    assert load(9, [NEW, OLD, MIDDLE], 2) == Admission((1, 2))


def test_a_loaded_model_needs_no_place() -> None:
    assert load(1, [OLD, MIDDLE, NEW], 1) == Admission()


def test_busy_models_are_waited_for() -> None:
    assert load(9, [BUSY, PINNED], 2) is WaitReason.FOR_PLACE


def test_pinned_models_are_not_waited_for() -> None:
    assert load(9, [PINNED], 1) == Refusal(Constraint.PLACES)


def test_a_place_that_is_being_made_free_is_waited_for_and_no_other_model_is_evicted() -> None:
    assert load(9, [LEAVING, OLD], 2) is WaitReason.FOR_UNLOAD


def test_a_model_being_unloaded_may_load_again_only_after_its_unload() -> None:
    assert load(6, [LEAVING], 0) is WaitReason.FOR_UNLOAD
    assert load(6, [LEAVING, OLD], 3) is WaitReason.FOR_UNLOAD


LOADED_MODELS = st.lists(
    st.builds(
        LoadedModel,
        st.integers(1, 20),
        st.floats(0, 100),
        st.floats(0, 100),
        st.booleans(),
        st.booleans(),
        st.booleans(),
    ),
    unique_by=lambda loaded: loaded.model_id,
)


@given(LOADED_MODELS, st.integers(0, 10))
def test_only_idle_unpinned_models_are_evicted_and_just_enough_of_them(
    loaded_models: list[LoadedModel], limit: int
) -> None:
    decision = load(99, loaded_models, limit)
    if not isinstance(decision, Admission):
        return
    by_id = {loaded.model_id: loaded for loaded in loaded_models}
    left = [by_id[model_id] for model_id in decision.evictions]
    assert not any(loaded.busy or loaded.pinned or loaded.unloading for loaded in left)
    staying = len(loaded_models) - len(left) - sum(loaded.unloading for loaded in loaded_models)
    if limit:
        assert staying + 1 <= limit
        assert not left or staying + 1 == limit


@pytest.mark.parametrize(("ttl_s", "gone"), [(0.0, ()), (5.0, (1, 2)), (15.0, (1,)), (60.0, ())])
def test_models_unused_for_long_enough_expire(ttl_s: float, gone: tuple[int, ...]) -> None:
    present = [replace(loaded, idle_ttl_s=ttl_s) for loaded in (OLD, MIDDLE, BUSY, PINNED, LEAVING)]
    assert expired(present, now_s=25.0) == gone


def test_each_gpu_has_a_limit_of_its_own() -> None:
    two = Capacity(gpu_bytes=48, gpus=(24, 24))
    assert two.fits([MemoryUse(0, 40, (20, 20))])
    assert not two.fits([MemoryUse(0, 30, (30, 0))])
    assert not two.fits([MemoryUse(0, 20, (20, 0)), MemoryUse(0, 10, (5, 5))])
    assert two.fits([MemoryUse(0, 40)]), "its GPU is not known"


def test_each_model_expires_in_its_own_time() -> None:
    assert expired([replace(OLD, idle_ttl_s=20.0), replace(MIDDLE, idle_ttl_s=1.0)], now_s=25.0) == (2,)


# --- turns --------------------------------------------------------------------------------------


def serving(
    model_id: int, turn_s: float, *, busy: bool = True, pinned: bool = False, unloading: bool = False
) -> LoadedModel:
    return LoadedModel(model_id, 0.0, turn_s, busy, pinned, unloading)


def test_the_longest_wait_is_first_within_a_priority() -> None:
    waiters = [Waiter(1, 20.0), Waiter(2, 10.0), Waiter(3, 30.0, priority=1)]
    assert [w.model_id for w in queue_order(waiters, 35.0, F)] == [3, 2, 1]


def test_an_overdue_waiter_comes_before_higher_priorities() -> None:
    waiters = [Waiter(1, 20.0), Waiter(2, 10.0), Waiter(3, 30.0, priority=1)]
    assert [w.model_id for w in queue_order(waiters, 40.0, F)] == [2, 3, 1]


def test_a_turn_lasts_for_the_bound_while_another_waits() -> None:
    assert admission_deadlines([serving(1, 100.0)], [Waiter(2, 100.0)], ONE) == {1: 130.0}


def test_a_model_that_had_its_place_for_long_drains_at_once() -> None:
    assert admission_deadlines([serving(1, 100.0)], [Waiter(2, 500.0)], ONE) == {1: 130.0}


def test_a_wait_that_began_before_the_turn_counts() -> None:
    assert admission_deadlines([serving(1, 100.0)], [Waiter(2, 80.0)], ONE) == {1: 110.0}
    assert admission_deadlines([serving(1, 100.0)], [Waiter(2, 50.0)], ONE) == {1: 100.0}


def test_turns_are_shorter_when_more_models_wait() -> None:
    assert admission_deadlines([serving(1, 0.0)], [Waiter(2, 0.0), Waiter(3, 0.0), Waiter(4, 0.0)], ONE) == {1: 10.0}
    two_places = [serving(1, 0.0), serving(5, 0.0)]
    assert admission_deadlines(two_places, [Waiter(2, 0.0), Waiter(3, 0.0), Waiter(4, 0.0)], Limits(2, F)) == {
        1: 15.0,
        5: 15.0,
    }


def test_there_are_no_deadlines_without_waiters() -> None:
    assert admission_deadlines([serving(1, 0.0)], [], ONE) == {}


def test_pinned_loading_and_unloading_models_do_not_drain() -> None:
    loaded_models = [
        serving(1, 0.0, pinned=True),
        LoadedModel(2, 0.0, None, busy=True),
        serving(3, 0.0, unloading=True),
    ]
    assert admission_deadlines(loaded_models, [Waiter(9, 0.0)], ONE) == {}


def test_new_requests_for_a_draining_model_wait_and_the_next_change_is_known() -> None:
    waiters, loaded_models, limits = [Waiter(2, 0.0), Waiter(1, 5.0)], [serving(1, 0.0)], Limits(1, F)
    before = plan(waiters, loaded_models, limits, 29.0)
    assert (before.draining, before.next_s, before.admitted) == (frozenset(), 30.0, (1,))
    after = plan(waiters, loaded_models, limits, 30.0)
    assert (after.draining, after.next_s, after.admitted) == (frozenset({1}), None, ())
    assert after.waits == {2: WaitReason.FOR_PLACE, 1: WaitReason.FOR_TURN}


def test_a_draining_model_is_evicted_once_idle_although_requests_wait_for_it() -> None:
    drained = plan([Waiter(2, 0.0), Waiter(1, 5.0)], [serving(1, 0.0, busy=False)], Limits(1, F), 40.0)
    assert (drained.evictions, drained.admitted) == ((1,), ())
    assert drained.waits == {2: WaitReason.FOR_UNLOAD, 1: WaitReason.FOR_TURN}


def test_a_draining_model_admits_again_when_the_other_waiters_have_gone() -> None:
    assert plan([Waiter(1, 5.0)], [serving(1, 0.0)], Limits(1, F), 40.0).admitted == (1,)


def test_no_model_drains_for_a_waiter_whose_place_is_being_made_free() -> None:
    loaded_models = [serving(1, 0.0), LoadedModel(3, 0.0, 0.0, unloading=True)]
    decided = plan([Waiter(2, 0.0)], loaded_models, Limits(2, F), 100.0)
    assert (decided.draining, decided.waits) == (frozenset(), {2: WaitReason.FOR_UNLOAD})


def test_each_waiting_model_gets_a_place_of_its_own() -> None:
    idle = [LoadedModel(1, 10.0, 0.0), LoadedModel(2, 20.0, 0.0), LoadedModel(3, 30.0, 0.0)]
    assert plan([Waiter(8, 1.0), Waiter(9, 2.0)], idle, Limits(3, F), 40.0).evictions == (1, 2)
    unloading = [replace(loaded, unloading=loaded.model_id != 3) for loaded in idle]
    assert plan([Waiter(8, 1.0), Waiter(9, 2.0)], unloading, Limits(3, F), 41.0).evictions == ()


def test_only_a_model_that_can_never_get_a_place_is_refused() -> None:
    assert plan([Waiter(2, 0.0)], [replace(PINNED, ready_since_s=0.0)], Limits(1, F), 0.0).refused == {
        2: Constraint.PLACES
    }
    assert plan([Waiter(2, 0.0), Waiter(3, 0.0)], [], Limits(1, F), 0.0).refused == {}


# --- memory -------------------------------------------------------------------------------------


def sized(loaded: LoadedModel, host: int, gpu: int = 0) -> LoadedModel:
    return replace(loaded, memory=MemoryUse(host, gpu))


def wanting(host: int, gpu: int = 0, *, forced: bool = False) -> Waiter:
    return Waiter(9, 0.0, memory=MemoryUse(host, gpu), forced=forced)


MEMORY = Limits(0, F, shared=Capacity(10, 10), exclusive=Capacity(16, 10))


def test_models_stay_loaded_together_as_long_as_they_fit_in_memory() -> None:
    assert may_load(wanting(5), [sized(OLD, 5)], MEMORY) == Admission()
    assert may_load(wanting(0, 5), [sized(OLD, 9, 5)], MEMORY) == Admission()


def test_idle_models_are_evicted_until_memory_is_enough_on_every_device() -> None:
    loaded_models = [sized(OLD, 3), sized(MIDDLE, 3), sized(NEW, 3)]
    assert may_load(wanting(5), loaded_models, MEMORY) == Admission((1, 2))
    assert may_load(wanting(1, 8), [sized(OLD, 3), sized(NEW, 3, 5)], MEMORY) == Admission((3,))


def test_small_models_stay_when_a_larger_one_is_evicted_anyway() -> None:
    assert may_load(wanting(9), [sized(OLD, 1), sized(NEW, 9)], MEMORY) == Admission((3,))


def test_memory_of_busy_models_is_waited_for_and_never_taken() -> None:
    assert may_load(wanting(5), [sized(BUSY, 6)], MEMORY) is WaitReason.FOR_MEMORY
    assert may_load(wanting(5), [sized(LEAVING, 6)], MEMORY) is WaitReason.FOR_UNLOAD


def test_a_load_above_what_is_free_gets_the_machine_for_itself() -> None:
    assert may_load(wanting(14), [], MEMORY) == Admission()
    assert may_load(wanting(14), [sized(OLD, 1), sized(NEW, 1)], MEMORY) == Admission((1, 3))
    assert may_load(wanting(14), [sized(BUSY, 1)], MEMORY) is WaitReason.FOR_MEMORY


def test_a_load_above_what_the_machine_has_is_refused_unless_forced() -> None:
    assert may_load(wanting(17), [sized(OLD, 1)], MEMORY) == Refusal(Constraint.MEMORY)
    assert may_load(wanting(14), [sized(PINNED, 3)], MEMORY) == Refusal(Constraint.MEMORY)
    assert may_load(wanting(17, forced=True), [sized(OLD, 1)], MEMORY) == Admission((1,))


def test_models_of_unknown_size_ask_for_no_memory() -> None:
    assert may_load(wanting(0), [sized(OLD, 99)], MEMORY) == Admission()


SIZED_LOADED_MODELS = st.lists(
    st.builds(
        lambda loaded, host, gpu: sized(loaded, host, gpu),
        st.builds(
            LoadedModel,
            st.integers(10, 30),
            st.floats(0, 100),
            st.floats(0, 100),
            st.booleans(),
            st.booleans(),
            st.booleans(),
        ),
        st.integers(0, 8),
        st.integers(0, 8),
    ),
    unique_by=lambda loaded: loaded.model_id,
)


@given(SIZED_LOADED_MODELS, st.integers(1, 20), st.integers(0, 12), st.integers(0, 4))
def test_no_model_is_evicted_for_memory_without_need(
    loaded_models: list[LoadedModel], host: int, gpu: int, places: int
) -> None:
    limits = replace(MEMORY, max_models=places)
    target = wanting(host, gpu)
    decision = may_load(target, loaded_models, limits)
    if not isinstance(decision, Admission):
        return
    left = [loaded for loaded in loaded_models if loaded.model_id in decision.evictions]
    assert not any(loaded.busy or loaded.pinned or loaded.unloading for loaded in left)
    staying = [r for r in loaded_models if r not in left and not r.unloading]
    assert violated_constraint(target, staying, limits) is None
    for spared in left:
        assert violated_constraint(target, [*staying, spared], limits) is not None


# --- groups -------------------------------------------------------------------------------------

APART = Limits(0, F, groups=(Group(frozenset({1, 9})),))
TOGETHER = Limits(0, F, groups=(Group(frozenset({1, 9}), together=True),))


def test_models_that_exclude_each_other_are_never_loaded_at_once() -> None:
    assert may_load(Waiter(9, 0.0), [OLD, NEW], APART) == Admission((1,))
    assert may_load(Waiter(9, 0.0), [replace(OLD, busy=True), NEW], APART) is WaitReason.FOR_GROUP
    assert may_load(Waiter(9, 0.0), [replace(OLD, pinned=True)], APART) == Refusal(Constraint.GROUP)
    assert may_load(Waiter(3, 0.0), [OLD], APART) == Admission()


def test_models_of_a_group_that_runs_together_evict_all_others() -> None:
    assert may_load(Waiter(9, 0.0), [OLD], TOGETHER) == Admission()
    assert may_load(Waiter(9, 0.0), [OLD, MIDDLE, NEW], TOGETHER) == Admission((2, 3))
    assert may_load(Waiter(3, 0.0), [OLD], TOGETHER) == Admission((1,))


def test_only_models_that_a_group_separates_have_to_drain() -> None:
    loaded_models = [serving(1, 0.0), serving(3, 0.0)]
    assert admission_deadlines(loaded_models, [Waiter(9, 0.0)], APART) == {1: 30.0}


def test_waiting_models_that_fit_together_share_a_turn() -> None:
    waiting = [Waiter(n, 0.0, memory=MemoryUse(5)) for n in (7, 8, 9)]
    assert admission_deadlines([sized(serving(1, 0.0), 10)], waiting[:2], MEMORY) == {1: 30.0}
    assert admission_deadlines([sized(serving(1, 0.0), 10)], waiting, MEMORY) == {1: 15.0}
