from __future__ import annotations

import time

import pytest

from inference.scheduling.test_snapshot import AT, Engine
from llama_async_proxy.events import Event, EventBus, ModelRuntimeChanged
from llama_async_proxy.inference.scheduling.lease import Lease
from llama_async_proxy.inference.scheduling.leases import Leases
from llama_async_proxy.inference.scheduling.model_states import ModelStates
from llama_async_proxy.inference.scheduling.policy import Wait
from llama_async_proxy.inference.scheduling.queue import Queue
from llama_async_proxy.records.runtime import ModelRuntime, ModelStatus, QueueState
from support.upstream import make_model


class Paper(EventBus):
    """Keeps what is published."""

    def __init__(self) -> None:
        super().__init__()
        self.news: list[tuple[ModelStatus, ModelStatus]] = []

    def publish(self, event: Event) -> None:
        assert isinstance(event, ModelRuntimeChanged)
        self.news.append((event.previous.status, event.runtime.status))


class Line:
    """Model 1 answers, somebody waits for model 2."""

    def __init__(self) -> None:
        self.engine, self.queue, self.leases, self.paper = Engine(), Queue[Lease](), Leases(), Paper()
        self.runtimes = ModelStates(self.engine, self.queue, self.leases, self.paper)
        self.engine.set(1, ModelStatus.READY, endpoint=AT)
        self.first = self.join(2)
        self.runtimes.waits = {2: Wait.FOR_PLACE}

    def join(self, model_id: int, waited_s: float = 0.0) -> Lease:
        lease = Lease(make_model(model_id))
        self.queue.add(model_id, lease, time.monotonic() - waited_s)
        return lease

    def queue_of(self, model_id: int) -> QueueState:
        queue = self.runtimes.of(model_id).queue
        assert queue is not None
        return queue

    def news(self) -> list[tuple[ModelStatus, ModelStatus]]:
        """From and to which status, as announced now."""
        self.paper.news.clear()
        self.runtimes.announce()
        return list(self.paper.news)


@pytest.fixture
def line() -> Line:
    return Line()


def test_a_model_without_a_queue_is_as_the_engine_says(line: Line) -> None:
    assert line.runtimes.of(1) == line.engine.runtime(1)
    assert line.runtimes.of(3) == ModelRuntime(3)


def test_a_model_with_a_queue_and_no_process_is_queued(line: Line) -> None:
    assert line.runtimes.of(2).status is ModelStatus.QUEUED
    line.engine.set(2, ModelStatus.FAILED, error="out of memory")
    assert line.runtimes.of(2).status is ModelStatus.QUEUED
    line.engine.set(2, ModelStatus.STOPPING, endpoint=AT)
    assert line.runtimes.of(2).status is ModelStatus.STOPPING
    assert line.queue_of(2).requests == 1


def test_a_queue_tells_its_place_how_many_wait_since_when_and_why(line: Line) -> None:
    line.join(3, waited_s=60.0)
    line.join(3)
    line.runtimes.waits = {2: Wait.FOR_UNLOAD, 3: Wait.FOR_TURN}
    queue = line.queue_of(3)
    assert (line.queue_of(2).position, queue.position, queue.requests) == (1, 2, 2)
    assert queue.reason == "other models come first"
    assert abs(queue.since_ms - (time.time() - 60.0) * 1000) < 5000


def test_a_queue_that_no_plan_has_seen_yet_is_not_shown(line: Line) -> None:
    line.join(3)
    assert line.runtimes.of(3) == ModelRuntime(3)


def test_all_are_those_the_engine_knows_and_those_somebody_waits_for(line: Line) -> None:
    line.engine.set(2, ModelStatus.FAILED, error="out of memory")
    assert [runtime.model_id for runtime in line.runtimes.all()] == [1, 2]
    line.join(3)
    assert [runtime.model_id for runtime in line.runtimes.all()] == [1, 2, 3]


def test_each_change_of_a_queue_is_announced_once(line: Line) -> None:
    assert line.news() == [(ModelStatus.UNLOADED, ModelStatus.QUEUED)]
    assert line.news() == []
    line.join(2)
    assert line.news() == [(ModelStatus.QUEUED, ModelStatus.QUEUED)], "one more waits"
    line.queue.take(2)
    assert line.news() == [(ModelStatus.QUEUED, ModelStatus.UNLOADED)]
    assert line.news() == []


def test_a_model_about_to_load_stays_announced_as_queued_until_it_does(line: Line) -> None:
    line.news()
    line.queue.take(2)
    line.leases.hold(line.first)
    assert line.news() == []
    assert line.runtimes.announced.keys() == {2}
    line.engine.set(2, ModelStatus.LOADING)
    assert line.news() == [(ModelStatus.QUEUED, ModelStatus.LOADING)]
    assert not line.runtimes.announced


def test_a_model_about_to_load_whose_client_leaves_is_announced_as_unloaded(line: Line) -> None:
    line.news()
    line.queue.take(2)
    line.leases.hold(line.first)
    line.news()
    line.leases.end(line.first)
    assert line.news() == [(ModelStatus.QUEUED, ModelStatus.UNLOADED)]
