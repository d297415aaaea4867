"""The policy and the queue together, in simulated time: the fairness bound holds, busy and pinned models stay."""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import combinations, count

from hypothesis import given, settings
from hypothesis import strategies as st

from llama_async_proxy.inference.scheduling.policy import Capacity, Group, Limits, LoadedModel, Plan, plan
from llama_async_proxy.inference.scheduling.queue import LoadTerms, Queue
from llama_async_proxy.records.runtime import NO_MEMORY, MemoryUse


@dataclass(frozen=True)
class Arrival:
    at_s: float
    model_id: int
    runs_s: float
    priority: int = 0


@dataclass
class Simulation:
    """Loads and unloads take `load_s`, requests run for `runs_s`, plans are carried out as the scheduler does."""

    limits: Limits
    load_s: float = 1.0
    pinned: frozenset[int] = frozenset()
    sizes: Mapping[int, MemoryUse] = field(default_factory=dict)
    waits: list[tuple[Arrival, float]] = field(default_factory=list)
    """Each request that had to queue, with the seconds that it waited."""
    loads: list[int] = field(default_factory=list)

    def run(self, arrivals: list[Arrival]) -> Simulation:
        self.now_s = 0.0
        self._queue: Queue[Arrival] = Queue()
        self._running: defaultdict[int, int] = defaultdict(int)
        self._loading: dict[int, list[Arrival]] = {}
        self._ready_since_s: dict[int, float] = {}
        self._used: defaultdict[int, float] = defaultdict(float)
        self._unloading: set[int] = set()
        self._plan = Plan()
        self._numbers = count()
        self._events: list[tuple[float, int, str, object]] = []
        for arrival in arrivals:
            self._at(arrival.at_s, "arrive", arrival)
        while self._events:
            self.now_s, _, kind, subject = heapq.heappop(self._events)
            getattr(self, f"_{kind}")(subject)
            self._replan()
        assert not self._queue, "no request waits for ever"
        return self

    def _at(self, at_s: float, kind: str, subject: object) -> None:
        heapq.heappush(self._events, (at_s, next(self._numbers), kind, subject))

    def _arrive(self, request: Arrival) -> None:
        model_id = request.model_id
        if model_id in self._unloading or model_id in self._plan.draining or not self._accepts(model_id):
            self._queue.add(
                model_id, request, self.now_s, LoadTerms(request.priority, self.sizes.get(model_id, NO_MEMORY))
            )
        elif model_id in self._loading:
            self._loading[model_id].append(request)
        else:
            self._start(request)

    def _accepts(self, model_id: int) -> bool:
        return model_id in self._loading or model_id in self._ready_since_s

    def _start(self, request: Arrival) -> None:
        self._running[request.model_id] += 1
        self._at(self.now_s + request.runs_s, "end", request.model_id)

    def _end(self, model_id: int) -> None:
        self._running[model_id] -= 1
        self._used[model_id] = self.now_s

    def _loaded(self, model_id: int) -> None:
        self._ready_since_s[model_id] = self.now_s
        for request in self._loading.pop(model_id):
            self._start(request)

    def _unloaded(self, model_id: int) -> None:
        self._unloading.remove(model_id)
        del self._ready_since_s[model_id]

    def _tick(self, _: object) -> None:
        """Nothing happens but a new plan, because a deadline has passed."""

    def loaded_models(self) -> list[LoadedModel]:
        return [
            LoadedModel(
                model_id,
                self._used[model_id],
                self._ready_since_s.get(model_id),
                busy=self._running[model_id] > 0 or model_id in self._loading,
                pinned=model_id in self.pinned,
                unloading=model_id in self._unloading,
                memory=self.sizes.get(model_id, NO_MEMORY),
            )
            for model_id in (*self._loading, *self._ready_since_s)
        ]

    def _replan(self) -> None:
        self._plan = plan(self._queue.waiters(), self.loaded_models(), self.limits, self.now_s)
        assert not self._plan.refused
        for model_id in self._plan.evictions:
            assert self._running[model_id] == 0, "a busy model is never evicted"
            assert model_id not in self.pinned, "nor is a pinned one"
            self._unloading.add(model_id)
            self._at(self.now_s + self.load_s, "unloaded", model_id)
        for model_id in self._plan.admitted:
            self._admit(model_id)
        if self._plan.next_s is not None:
            self._at(self._plan.next_s, "tick", None)
        self._check_that_loaded_models_fit()

    def _check_that_loaded_models_fit(self) -> None:
        present = self.loaded_models()
        assert not self.limits.max_models or len(present) <= self.limits.max_models
        assert len(present) == 1 or self.limits.shared.fits(loaded.memory for loaded in present)
        pairs = combinations((loaded.model_id for loaded in present), 2)
        assert not any(self.limits.separates(one, other) for one, other in pairs)

    def _admit(self, model_id: int) -> None:
        if not self._accepts(model_id):
            self._loading[model_id] = []
            self.loads.append(model_id)
            self._at(self.now_s + self.load_s, "loaded", model_id)
        for request in self._queue.take(model_id):
            self.waits.append((request, self.now_s - request.at_s))
            if model_id in self._loading:
                self._loading[model_id].append(request)
            else:
                self._start(request)


def overlapping(model_id: int, until_s: float, *, every_s: float = 0.5, runs_s: float = 1.0) -> list[Arrival]:
    return [Arrival(n * every_s, model_id, runs_s) for n in range(int(until_s / every_s))]


def test_endless_overlapping_traffic_does_not_keep_another_model_out() -> None:
    simulation = Simulation(Limits(1, 30.0)).run([*overlapping(1, 300.0), Arrival(100.0, 2, 1.0)])
    [wait] = [wait for request, wait in simulation.waits if request.model_id == 2]
    assert wait <= 1.0 + simulation.load_s, "the first model has had its turn long ago"


def test_a_turn_that_has_just_begun_is_not_cut_short() -> None:
    simulation = Simulation(Limits(1, 30.0)).run([*overlapping(1, 300.0), Arrival(2.0, 2, 1.0)])
    [wait] = [wait for request, wait in simulation.waits if request.model_id == 2]
    assert 20.0 < wait <= 30.0 + 1.0 + simulation.load_s


def test_requests_in_turn_for_two_models_do_not_thrash() -> None:
    in_turn = [Arrival(n * 0.1, 1 + n % 2, 1.0) for n in range(6000)]
    simulation = Simulation(Limits(1, 30.0), load_s=5.0).run(in_turn)
    # 600 s: each swap takes an unload, a load and the end of what runs, each turn admits newcomers for a good while.
    assert len(simulation.loads) <= 600 / 20


def test_a_burst_for_two_models_loads_each_once() -> None:
    simulation = Simulation(Limits(1, 30.0)).run([Arrival(n * 0.001, 1 + n % 2, 1.0) for n in range(100)])
    assert simulation.loads == [1, 2]


def test_three_models_share_one_place_within_one_bound() -> None:
    simulation = Simulation(Limits(1, 30.0), load_s=0.1).run([a for m in (1, 2, 3) for a in overlapping(m, 600.0)])
    assert max(wait for _, wait in simulation.waits) <= 30.0 + 2 * (1.0 + 2 * 0.1) + 1e-6
    assert len(simulation.loads) <= 600 / 10


ARRIVALS = st.lists(
    st.builds(Arrival, st.floats(0, 120), st.integers(1, 5), st.floats(0.01, 5), st.sampled_from((0, 0, 0, 1))),
    max_size=60,
)


@settings(deadline=None)
@given(
    ARRIVALS,
    st.lists(st.integers(1, 3), max_size=2, unique=True),
    st.integers(1, 3),
    st.floats(0, 40),
    st.floats(0.01, 10),
)
def test_no_request_waits_longer_than_the_bound_and_what_had_to_end_and_load(
    arrivals: list[Arrival], endless: list[int], places: int, fairness_s: float, load_s: float
) -> None:
    traffic = [a for model_id in endless for a in overlapping(model_id, 150.0, every_s=0.9)]
    pinned = frozenset({9})  # takes one place for ever
    simulation = Simulation(Limits(places + 1, fairness_s), load_s, pinned)
    simulation.run([Arrival(0.0, 9, 0.01), *arrivals, *traffic])
    longest_s = max((a.runs_s for a in (*arrivals, *traffic)), default=0.0)
    models = len({a.model_id for a in (*arrivals, *traffic)})
    # Each model before it may have to load, to end its requests, and to be unloaded.
    allowed_s = fairness_s + models * (2 * load_s + longest_s)
    assert all(wait <= allowed_s + 1e-6 for _, wait in simulation.waits)


@settings(deadline=None)
@given(
    ARRIVALS,
    st.lists(st.integers(1, 3), max_size=2, unique=True),
    st.lists(st.builds(MemoryUse, st.integers(1, 12), st.integers(0, 12)), min_size=5, max_size=5),
    st.lists(st.builds(Group, st.frozensets(st.integers(1, 5), min_size=2), st.booleans()), max_size=2),
    st.floats(0, 40),
)
def test_the_bound_holds_for_models_of_any_size_and_group(
    arrivals: list[Arrival], endless: list[int], sizes: list[MemoryUse], groups: list[Group], fairness_s: float
) -> None:
    traffic = [a for model_id in endless for a in overlapping(model_id, 150.0, every_s=0.9)]
    limits = Limits(0, fairness_s, Capacity(10, 10), Capacity(12, 12), tuple(groups))
    simulation = Simulation(limits, sizes=dict(enumerate(sizes, 1)))
    simulation.run([*arrivals, *traffic])
    longest_s = max((a.runs_s for a in (*arrivals, *traffic)), default=0.0)
    models = len({a.model_id for a in (*arrivals, *traffic)})
    allowed_s = fairness_s + models * (2 * simulation.load_s + longest_s)
    assert all(wait <= allowed_s + 1e-6 for _, wait in simulation.waits)
