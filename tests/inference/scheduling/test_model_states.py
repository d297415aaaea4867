from __future__ import annotations

import time

import pytest

from inference.scheduling.test_snapshot import AT, SnapshotHarness
from llama_async_proxy.events import Event, EventBus, ModelRuntimeChanged
from llama_async_proxy.inference.scheduling.admission import AdmissionControl
from llama_async_proxy.inference.scheduling.leases import Lease
from llama_async_proxy.inference.scheduling.model_states import ModelStates
from llama_async_proxy.inference.scheduling.policy import Plan, WaitReason
from llama_async_proxy.records.runtime import ModelRuntime, ModelStatus, QueueState
from support.upstream import make_model


class PublishedStatuses(EventBus):
    """Event bus that records the status before and after each change."""

    def __init__(self) -> None:
        super().__init__()
        self.changes: list[tuple[ModelStatus, ModelStatus]] = []

    def publish(self, event: Event) -> None:
        assert isinstance(event, ModelRuntimeChanged)
        self.changes.append((event.previous.status, event.runtime.status))


class StatesHarness:
    """Model 1 is ready; one request is queued for model 2."""

    def __init__(self) -> None:
        self.snapshot, self.published = SnapshotHarness(), PublishedStatuses()
        self.engine, self.leases = self.snapshot.engine, self.snapshot.leases
        self.admission = AdmissionControl(self.snapshot.loaded_models, self.leases, self.snapshot.context)
        self.queue = self.admission.queue
        self.states = ModelStates(self.engine, self.admission, self.published)
        self.engine.set(1, ModelStatus.READY, endpoint=AT)
        self.first = self.join(2)
        self.plan_waits({2: WaitReason.FOR_PLACE})

    def plan_waits(self, waits: dict[int, WaitReason]) -> None:
        self.admission.plan = Plan(waits=waits)

    def join(self, model_id: int, waited_s: float = 0.0) -> Lease:
        lease = Lease(make_model(model_id))
        self.queue.add(model_id, lease, time.monotonic() - waited_s)
        return lease

    def queue_of(self, model_id: int) -> QueueState:
        queue = self.states.of(model_id).queue
        assert queue is not None
        return queue

    def published_now(self) -> list[tuple[ModelStatus, ModelStatus]]:
        """Status before and after each change that is published now."""
        self.published.changes.clear()
        self.states.publish_changes()
        return list(self.published.changes)


@pytest.fixture
def harness() -> StatesHarness:
    return StatesHarness()


def test_a_model_without_a_queue_is_as_the_engine_says(harness: StatesHarness) -> None:
    assert harness.states.of(1) == harness.engine.runtime(1)
    assert harness.states.of(3) == ModelRuntime(3)


def test_a_model_with_a_queue_and_no_process_is_queued(harness: StatesHarness) -> None:
    assert harness.states.of(2).status is ModelStatus.QUEUED
    harness.engine.set(2, ModelStatus.FAILED, error="out of memory")
    assert harness.states.of(2).status is ModelStatus.QUEUED
    harness.engine.set(2, ModelStatus.STOPPING, endpoint=AT)
    assert harness.states.of(2).status is ModelStatus.STOPPING
    assert harness.queue_of(2).requests == 1


def test_a_queue_state_has_position_length_start_and_reason(harness: StatesHarness) -> None:
    harness.join(3, waited_s=60.0)
    harness.join(3)
    harness.plan_waits({2: WaitReason.FOR_UNLOAD, 3: WaitReason.FOR_TURN})
    queue = harness.queue_of(3)
    assert (harness.queue_of(2).position, queue.position, queue.requests) == (1, 2, 2)
    assert queue.reason == "other models come first"
    assert abs(queue.since_ms - (time.time() - 60.0) * 1000) < 5000


def test_a_queue_that_no_plan_has_seen_yet_is_not_shown(harness: StatesHarness) -> None:
    harness.join(3)
    assert harness.states.of(3) == ModelRuntime(3)


def test_all_states_cover_models_of_the_engine_and_models_with_a_queue(harness: StatesHarness) -> None:
    harness.engine.set(2, ModelStatus.FAILED, error="out of memory")
    assert [runtime.model_id for runtime in harness.states.all()] == [1, 2]
    harness.join(3)
    assert [runtime.model_id for runtime in harness.states.all()] == [1, 2, 3]


def test_each_change_of_a_queue_is_published_once(harness: StatesHarness) -> None:
    assert harness.published_now() == [(ModelStatus.UNLOADED, ModelStatus.QUEUED)]
    assert harness.published_now() == []
    harness.join(2)
    assert harness.published_now() == [(ModelStatus.QUEUED, ModelStatus.QUEUED)], "one more waits"
    harness.queue.take(2)
    assert harness.published_now() == [(ModelStatus.QUEUED, ModelStatus.UNLOADED)]
    assert harness.published_now() == []


def test_an_admitted_model_stays_published_as_queued_until_it_loads(harness: StatesHarness) -> None:
    harness.published_now()
    harness.queue.take(2)
    harness.leases.hold(harness.first)
    assert harness.published_now() == []
    assert harness.states.published.keys() == {2}
    harness.engine.set(2, ModelStatus.LOADING)
    assert harness.published_now() == [(ModelStatus.QUEUED, ModelStatus.LOADING)]
    assert not harness.states.published


def test_an_admitted_model_whose_client_leaves_is_published_as_unloaded(harness: StatesHarness) -> None:
    harness.published_now()
    harness.queue.take(2)
    harness.leases.hold(harness.first)
    harness.published_now()
    harness.leases.end(harness.first)
    assert harness.published_now() == [(ModelStatus.QUEUED, ModelStatus.UNLOADED)]
