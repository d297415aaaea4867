from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llama_async_proxy.inference.scheduling.policy import (
    Admission,
    Capacity,
    Decision,
    Group,
    Limits,
    LoadedModel,
    Obstacle,
    Refusal,
    Wait,
    Waiter,
    closing_times,
    expired,
    in_line,
    may_load,
    obstacle,
    plan,
)
from llama_async_proxy.records.runtime import MemoryUse

OLD, MIDDLE, NEW = LoadedModel(1, 10.0), LoadedModel(2, 20.0), LoadedModel(3, 30.0)
BUSY, PINNED = LoadedModel(4, 0.0, busy=True), LoadedModel(5, 0.0, pinned=True)
LEAVING = LoadedModel(6, 0.0, leaving=True)
F = 30.0
ONE = Limits(1, F)


def load(target: int, loaded_models: Sequence[LoadedModel], places: int) -> Decision:
    return may_load(Waiter(target, 0.0), loaded_models, Limits(places, F))


# --- places -------------------------------------------------------------------------------------


def test_nothing_leaves_while_there_is_room() -> None:
    assert load(9, [OLD, NEW], 3) == Admission()


def test_no_limit_means_nothing_ever_leaves() -> None:
    assert load(9, [OLD, MIDDLE, NEW], 0) == Admission()


def test_the_least_recently_used_idle_model_leaves() -> None:
    assert load(9, [NEW, BUSY, OLD, PINNED, MIDDLE], 5) == Admission((1,))


def test_a_lowered_limit_makes_several_leave() -> None:
    assert load(9, [NEW, OLD, MIDDLE], 2) == Admission((1, 2))


def test_a_resident_model_needs_no_place() -> None:
    assert load(1, [OLD, MIDDLE, NEW], 1) == Admission()


def test_busy_models_are_waited_for() -> None:
    assert load(9, [BUSY, PINNED], 2) is Wait.FOR_PLACE


def test_pinned_models_are_not() -> None:
    assert load(9, [PINNED], 1) == Refusal(Obstacle.PLACES)


def test_a_place_that_is_being_made_free_is_waited_for_and_no_other_model_leaves() -> None:
    assert load(9, [LEAVING, OLD], 2) is Wait.FOR_UNLOAD


def test_a_model_that_is_being_unloaded_may_come_back_only_when_it_has_left() -> None:
    assert load(6, [LEAVING], 0) is Wait.FOR_UNLOAD
    assert load(6, [LEAVING, OLD], 3) is Wait.FOR_UNLOAD


RESIDENTS = st.lists(
    st.builds(
        LoadedModel,
        st.integers(1, 20),
        st.floats(0, 100),
        st.floats(0, 100),
        st.booleans(),
        st.booleans(),
        st.booleans(),
    ),
    unique_by=lambda resident: resident.model_id,
)


@given(RESIDENTS, st.integers(0, 10))
def test_only_idle_unpinned_models_leave_and_just_enough_of_them(loaded_models: list[LoadedModel], limit: int) -> None:
    decision = load(99, loaded_models, limit)
    if not isinstance(decision, Admission):
        return
    by_id = {resident.model_id: resident for resident in loaded_models}
    left = [by_id[model_id] for model_id in decision.evictions]
    assert not any(resident.busy or resident.pinned or resident.leaving for resident in left)
    staying = len(loaded_models) - len(left) - sum(resident.leaving for resident in loaded_models)
    if limit:
        assert staying + 1 <= limit
        assert not left or staying + 1 == limit


@pytest.mark.parametrize(("ttl_s", "gone"), [(0.0, ()), (5.0, (1, 2)), (15.0, (1,)), (60.0, ())])
def test_models_unused_for_long_enough_expire(ttl_s: float, gone: tuple[int, ...]) -> None:
    present = [replace(resident, idle_ttl_s=ttl_s) for resident in (OLD, MIDDLE, BUSY, PINNED, LEAVING)]
    assert expired(present, now_s=25.0) == gone


def test_no_gpu_holds_more_than_it_has_whatever_the_others_have() -> None:
    two = Capacity(gpu_bytes=48, gpus=(24, 24))
    assert two.holds([MemoryUse(0, 40, (20, 20))])
    assert not two.holds([MemoryUse(0, 30, (30, 0))])
    assert not two.holds([MemoryUse(0, 20, (20, 0)), MemoryUse(0, 10, (5, 5))])
    assert two.holds([MemoryUse(0, 40)]), "where it lies is not known"


def test_each_model_expires_in_its_own_time() -> None:
    assert expired([replace(OLD, idle_ttl_s=20.0), replace(MIDDLE, idle_ttl_s=1.0)], now_s=25.0) == (2,)


# --- turns --------------------------------------------------------------------------------------


def serving(
    model_id: int, turn_s: float, *, busy: bool = True, pinned: bool = False, leaving: bool = False
) -> LoadedModel:
    return LoadedModel(model_id, 0.0, turn_s, busy, pinned, leaving)


def test_the_longest_wait_is_first_in_line_within_a_priority() -> None:
    waiters = [Waiter(1, 20.0), Waiter(2, 10.0), Waiter(3, 30.0, priority=1)]
    assert [w.model_id for w in in_line(waiters, 35.0, F)] == [3, 2, 1]


def test_priority_does_not_hold_up_who_has_waited_for_the_bound() -> None:
    waiters = [Waiter(1, 20.0), Waiter(2, 10.0), Waiter(3, 30.0, priority=1)]
    assert [w.model_id for w in in_line(waiters, 40.0, F)] == [2, 3, 1]


def test_a_turn_lasts_for_the_bound_while_another_waits() -> None:
    assert closing_times([serving(1, 100.0)], [Waiter(2, 100.0)], ONE) == {1: 130.0}


def test_who_had_the_place_for_long_gives_it_up_at_once() -> None:
    assert closing_times([serving(1, 100.0)], [Waiter(2, 500.0)], ONE) == {1: 130.0}


def test_a_wait_that_began_before_the_turn_counts() -> None:
    assert closing_times([serving(1, 100.0)], [Waiter(2, 80.0)], ONE) == {1: 110.0}
    assert closing_times([serving(1, 100.0)], [Waiter(2, 50.0)], ONE) == {1: 100.0}


def test_turns_are_shorter_when_more_models_wait() -> None:
    assert closing_times([serving(1, 0.0)], [Waiter(2, 0.0), Waiter(3, 0.0), Waiter(4, 0.0)], ONE) == {1: 10.0}
    two_places = [serving(1, 0.0), serving(5, 0.0)]
    assert closing_times(two_places, [Waiter(2, 0.0), Waiter(3, 0.0), Waiter(4, 0.0)], Limits(2, F)) == {
        1: 15.0,
        5: 15.0,
    }


def test_nobody_has_to_yield_while_nobody_waits() -> None:
    assert closing_times([serving(1, 0.0)], [], ONE) == {}


def test_a_pinned_model_a_loading_one_and_one_that_leaves_are_not_closed() -> None:
    loaded_models = [serving(1, 0.0, pinned=True), LoadedModel(2, 0.0, None, busy=True), serving(3, 0.0, leaving=True)]
    assert closing_times(loaded_models, [Waiter(9, 0.0)], ONE) == {}


def test_newcomers_to_a_closed_model_wait_and_the_next_change_is_known() -> None:
    waiters, loaded_models, limits = [Waiter(2, 0.0), Waiter(1, 5.0)], [serving(1, 0.0)], Limits(1, F)
    before = plan(waiters, loaded_models, limits, 29.0)
    assert (before.closed, before.next_s, before.admitted) == (frozenset(), 30.0, (1,))
    after = plan(waiters, loaded_models, limits, 30.0)
    assert (after.closed, after.next_s, after.admitted) == (frozenset({1}), None, ())
    assert after.waits == {2: Wait.FOR_PLACE, 1: Wait.FOR_TURN}


def test_a_closed_model_that_has_become_idle_leaves_although_others_wait_for_it() -> None:
    drained = plan([Waiter(2, 0.0), Waiter(1, 5.0)], [serving(1, 0.0, busy=False)], Limits(1, F), 40.0)
    assert (drained.evictions, drained.admitted) == ((1,), ())
    assert drained.waits == {2: Wait.FOR_UNLOAD, 1: Wait.FOR_TURN}


def test_a_closed_model_opens_again_when_the_others_have_gone() -> None:
    assert plan([Waiter(1, 5.0)], [serving(1, 0.0)], Limits(1, F), 40.0).admitted == (1,)


def test_nobody_is_closed_for_a_model_whose_place_is_being_made_free() -> None:
    loaded_models = [serving(1, 0.0), LoadedModel(3, 0.0, 0.0, leaving=True)]
    decided = plan([Waiter(2, 0.0)], loaded_models, Limits(2, F), 100.0)
    assert (decided.closed, decided.waits) == (frozenset(), {2: Wait.FOR_UNLOAD})


def test_each_waiting_model_gets_a_place_of_its_own() -> None:
    idle = [LoadedModel(1, 10.0, 0.0), LoadedModel(2, 20.0, 0.0), LoadedModel(3, 30.0, 0.0)]
    assert plan([Waiter(8, 1.0), Waiter(9, 2.0)], idle, Limits(3, F), 40.0).evictions == (1, 2)
    leaving = [replace(resident, leaving=resident.model_id != 3) for resident in idle]
    assert plan([Waiter(8, 1.0), Waiter(9, 2.0)], leaving, Limits(3, F), 41.0).evictions == ()


def test_only_who_can_never_get_a_place_is_refused() -> None:
    assert plan([Waiter(2, 0.0)], [replace(PINNED, turn_s=0.0)], Limits(1, F), 0.0).refused == {2: Obstacle.PLACES}
    assert plan([Waiter(2, 0.0), Waiter(3, 0.0)], [], Limits(1, F), 0.0).refused == {}


# --- memory -------------------------------------------------------------------------------------


def sized(resident: LoadedModel, host: int, gpu: int = 0) -> LoadedModel:
    return replace(resident, memory=MemoryUse(host, gpu))


def wanting(host: int, gpu: int = 0, *, forced: bool = False) -> Waiter:
    return Waiter(9, 0.0, memory=MemoryUse(host, gpu), forced=forced)


MEMORY = Limits(0, F, together=Capacity(10, 10), alone=Capacity(16, 10))


def test_models_stay_together_as_long_as_memory_holds_them() -> None:
    assert may_load(wanting(5), [sized(OLD, 5)], MEMORY) == Admission()
    assert may_load(wanting(0, 5), [sized(OLD, 9, 5)], MEMORY) == Admission()


def test_idle_models_leave_until_memory_is_enough_on_every_device() -> None:
    loaded_models = [sized(OLD, 3), sized(MIDDLE, 3), sized(NEW, 3)]
    assert may_load(wanting(5), loaded_models, MEMORY) == Admission((1, 2))
    assert may_load(wanting(1, 8), [sized(OLD, 3), sized(NEW, 3, 5)], MEMORY) == Admission((3,))


def test_small_models_are_spared_when_a_larger_one_has_to_leave_anyway() -> None:
    assert may_load(wanting(9), [sized(OLD, 1), sized(NEW, 9)], MEMORY) == Admission((3,))


def test_memory_of_busy_models_is_waited_for_and_never_taken() -> None:
    assert may_load(wanting(5), [sized(BUSY, 6)], MEMORY) is Wait.FOR_MEMORY
    assert may_load(wanting(5), [sized(LEAVING, 6)], MEMORY) is Wait.FOR_UNLOAD


def test_a_load_above_what_is_free_gets_the_machine_for_itself() -> None:
    assert may_load(wanting(14), [], MEMORY) == Admission()
    assert may_load(wanting(14), [sized(OLD, 1), sized(NEW, 1)], MEMORY) == Admission((1, 3))
    assert may_load(wanting(14), [sized(BUSY, 1)], MEMORY) is Wait.FOR_MEMORY


def test_a_load_above_what_the_machine_has_is_refused_unless_forced() -> None:
    assert may_load(wanting(17), [sized(OLD, 1)], MEMORY) == Refusal(Obstacle.MEMORY)
    assert may_load(wanting(14), [sized(PINNED, 3)], MEMORY) == Refusal(Obstacle.MEMORY)
    assert may_load(wanting(17, forced=True), [sized(OLD, 1)], MEMORY) == Admission((1,))


def test_models_of_unknown_size_ask_for_no_memory() -> None:
    assert may_load(wanting(0), [sized(OLD, 99)], MEMORY) == Admission()


SIZED_RESIDENTS = st.lists(
    st.builds(
        lambda resident, host, gpu: sized(resident, host, gpu),
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
    unique_by=lambda resident: resident.model_id,
)


@given(SIZED_RESIDENTS, st.integers(1, 20), st.integers(0, 12), st.integers(0, 4))
def test_whoever_leaves_for_memory_had_to(loaded_models: list[LoadedModel], host: int, gpu: int, places: int) -> None:
    limits = replace(MEMORY, max_models=places)
    target = wanting(host, gpu)
    decision = may_load(target, loaded_models, limits)
    if not isinstance(decision, Admission):
        return
    left = [resident for resident in loaded_models if resident.model_id in decision.evictions]
    assert not any(resident.busy or resident.pinned or resident.leaving for resident in left)
    staying = [r for r in loaded_models if r not in left and not r.leaving]
    assert obstacle(target, staying, limits) is None
    for spared in left:
        assert obstacle(target, [*staying, spared], limits) is not None


# --- groups -------------------------------------------------------------------------------------

APART = Limits(0, F, groups=(Group(frozenset({1, 9})),))
TOGETHER = Limits(0, F, groups=(Group(frozenset({1, 9}), together=True),))


def test_models_that_exclude_each_other_are_never_loaded_at_once() -> None:
    assert may_load(Waiter(9, 0.0), [OLD, NEW], APART) == Admission((1,))
    assert may_load(Waiter(9, 0.0), [replace(OLD, busy=True), NEW], APART) is Wait.FOR_GROUP
    assert may_load(Waiter(9, 0.0), [replace(OLD, pinned=True)], APART) == Refusal(Obstacle.GROUP)
    assert may_load(Waiter(3, 0.0), [OLD], APART) == Admission()


def test_models_of_a_group_that_runs_together_drive_out_all_others() -> None:
    assert may_load(Waiter(9, 0.0), [OLD], TOGETHER) == Admission()
    assert may_load(Waiter(9, 0.0), [OLD, MIDDLE, NEW], TOGETHER) == Admission((2, 3))
    assert may_load(Waiter(3, 0.0), [OLD], TOGETHER) == Admission((1,))


def test_only_those_a_group_keeps_apart_have_to_yield() -> None:
    loaded_models = [serving(1, 0.0), serving(3, 0.0)]
    assert closing_times(loaded_models, [Waiter(9, 0.0)], APART) == {1: 30.0}


def test_waiting_models_that_fit_together_share_a_turn() -> None:
    waiting = [Waiter(n, 0.0, memory=MemoryUse(5)) for n in (7, 8, 9)]
    assert closing_times([sized(serving(1, 0.0), 10)], waiting[:2], MEMORY) == {1: 30.0}
    assert closing_times([sized(serving(1, 0.0), 10)], waiting, MEMORY) == {1: 15.0}
