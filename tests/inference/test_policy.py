from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llama_async_proxy.inference.policy import Refusal, Resident, evictions, expired

OLD, MIDDLE, NEW = Resident(1, 10.0), Resident(2, 20.0), Resident(3, 30.0)
BUSY, PINNED = Resident(4, 0.0, busy=True), Resident(5, 0.0, pinned=True)


def test_nothing_leaves_while_there_is_room() -> None:
    assert evictions(9, [OLD, NEW], 3) == ()


def test_no_limit_means_nothing_ever_leaves() -> None:
    assert evictions(9, [OLD, MIDDLE, NEW], 0) == ()


def test_the_least_recently_used_idle_model_leaves() -> None:
    assert evictions(9, [NEW, BUSY, OLD, PINNED, MIDDLE], 5) == (1,)


def test_a_lowered_limit_makes_several_leave() -> None:
    assert evictions(9, [NEW, OLD, MIDDLE], 2) == (1, 2)


def test_a_resident_model_needs_no_place() -> None:
    assert evictions(1, [OLD, MIDDLE, NEW], 1) == ()


def test_busy_models_are_waited_for() -> None:
    assert evictions(9, [BUSY, PINNED], 2) == Refusal(final=False)


def test_pinned_models_are_not() -> None:
    assert evictions(9, [PINNED], 1) == Refusal(final=True)


RESIDENTS = st.lists(
    st.builds(Resident, st.integers(1, 20), st.floats(0, 100), st.booleans(), st.booleans()),
    unique_by=lambda resident: resident.model_id,
)


@given(RESIDENTS, st.integers(0, 10))
def test_only_idle_unpinned_models_leave_and_just_enough_of_them(residents: list[Resident], limit: int) -> None:
    decision = evictions(99, residents, limit)
    if isinstance(decision, Refusal):
        return
    by_id = {resident.model_id: resident for resident in residents}
    left = [by_id[model_id] for model_id in decision]
    assert not any(resident.busy or resident.pinned for resident in left)
    if limit:
        assert len(residents) - len(left) + 1 <= limit or not left
        assert not left or len(residents) - len(left) + 1 == limit


@pytest.mark.parametrize(("ttl_s", "gone"), [(0.0, ()), (5.0, (1, 2)), (15.0, (1,)), (60.0, ())])
def test_models_unused_for_long_enough_expire(ttl_s: float, gone: tuple[int, ...]) -> None:
    assert expired([OLD, MIDDLE, BUSY, PINNED], now_s=25.0, idle_ttl_s=ttl_s) == gone
