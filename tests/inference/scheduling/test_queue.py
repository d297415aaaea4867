from __future__ import annotations

import pytest

from llama_async_proxy.inference.scheduling.policy import Waiter
from llama_async_proxy.inference.scheduling.queue import LoadTerms, Queue


def test_first_come_first_served_within_a_priority() -> None:
    queue = Queue[str]()
    for n, (item, priority) in enumerate([("a", 0), ("urgent", 1), ("b", 0), ("urgent too", 1)]):
        queue.add(1, item, float(n), LoadTerms(priority))
    assert [queue.position(1, item) for item in ("urgent", "urgent too", "a", "b")] == [1, 2, 3, 4]
    assert queue.take(1) == ("urgent", "urgent too", "a", "b")
    assert not queue


def test_models_have_lines_of_their_own() -> None:
    queue = Queue[str]()
    queue.add(1, "a", 0.0)
    queue.add(2, "b", 1.0, LoadTerms(3))
    queue.add(2, "c", 2.0)
    assert list(queue) == [1, 2]
    assert queue.waiters() == (Waiter(1, 0.0), Waiter(2, 1.0, 3))
    assert queue.take(2) == ("b", "c")
    assert (1 in queue, 2 in queue, queue.length(1), queue.length(2)) == (True, False, 1, 0)


def test_a_discarded_item_moves_the_others_up_and_its_wait_no_longer_counts() -> None:
    queue = Queue[str]()
    for since_s, item in enumerate(("a", "b", "c")):
        queue.add(1, item, float(since_s))
    assert queue.discard(1, "a")
    assert (queue.position(1, "a"), queue.position(1, "c"), queue.since_s(1)) == (None, 2, 1.0)


def test_an_empty_line_is_removed() -> None:
    queue = Queue[str]()
    queue.add(1, "a", 0.0)
    assert queue.discard(1, "a")
    assert not queue.discard(1, "a")
    assert (bool(queue), list(queue), queue.take(1), queue.waiters()) == (False, [], (), ())
    with pytest.raises(KeyError):
        queue.since_s(1)


def test_the_longest_wait_counts_even_behind_a_higher_priority() -> None:
    queue = Queue[str]()
    queue.add(1, "patient", 0.0)
    queue.add(1, "urgent", 9.0, LoadTerms(1))
    assert queue.waiters() == (Waiter(1, 0.0, 1),)
