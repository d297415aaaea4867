from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection
from typing import Any

import pytest

from llama_async_proxy.api.socketio.emitter import Emitter
from llama_async_proxy.api.ui.topic import Topic

FIRST = 1000


class Wires:
    """A server whose clients' queues the test fills."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, str, Any]] = []
        self.waiting: dict[str, int] = {}
        self._arrived = asyncio.Event()

    async def emit(self, event: str, data: object, *, to: str | None, namespace: str) -> None:
        assert to is not None
        self.sent.append((to, event, data))
        self._arrived.set()

    def show(self, event: str, data: object, clients: Collection[str], namespace: str) -> None:
        raise AssertionError("a delta reaches each client, in order")

    def backlog(self, client: str) -> int:
        return self.waiting.get(client, 0)

    def to(self, client: str) -> list[tuple[str, Any]]:
        return [(event, data) for receiver, event, data in self.sent if receiver == client]

    async def until(self, client: str, count: int) -> list[tuple[str, Any]]:
        async with asyncio.timeout(30):
            while len(self.to(client)) < count:
                self._arrived.clear()
                await self._arrived.wait()
        return self.to(client)


class State:
    """A topic over a dictionary."""

    def __init__(self, wires: Wires, *, lossy: bool) -> None:
        self.values: dict[str, int] = {}
        outlet = Emitter(wires, "/ui")
        self.topic = Topic("state", outlet, lambda: dict(self.values), interval_s=0.01, lossy=lossy, first_seq=FIRST)

    def set(self, key: str, value: int) -> None:
        self.values[key] = value
        self.topic.publish({key: value}, key=key)


@pytest.fixture
def wires() -> Wires:
    return Wires()


@pytest.fixture
async def state(wires: Wires) -> AsyncIterator[State]:
    state = State(wires, lossy=False)
    async for _ in running(state.topic):
        yield state


@pytest.fixture
async def lossy(wires: Wires) -> AsyncIterator[State]:
    state = State(wires, lossy=True)
    async for _ in running(state.topic):
        yield state


async def running(topic: Topic) -> AsyncIterator[None]:
    task = asyncio.create_task(topic.run())
    yield
    task.cancel()
    await asyncio.wait({task})


async def test_who_joins_gets_a_snapshot_then_numbered_deltas(state: State, wires: Wires) -> None:
    state.values["a"] = 1
    await state.topic.join("x")
    state.set("b", 2)
    assert await wires.until("x", 2) == [
        ("snapshot", {"topic": "state", "seq": FIRST, "data": {"a": 1}}),
        ("delta", {"topic": "state", "seq": FIRST + 1, "items": [{"b": 2}], "dropped": 0}),
    ]


async def test_what_happens_at_once_is_one_delta_with_the_last_word_on_each_key(state: State, wires: Wires) -> None:
    await state.topic.join("x")
    for value in range(100):
        state.set("a", value)
    state.set("b", 7)
    _, (_, delta) = await wires.until("x", 2)
    assert delta["items"] == [{"a": 99}, {"b": 7}]


async def test_who_left_gets_nothing_more(state: State, wires: Wires) -> None:
    await state.topic.join("x")
    await state.topic.join("y")
    state.topic.leave("x")
    state.set("a", 1)
    await wires.until("y", 2)
    assert len(wires.to("x")) == 1
    assert state.topic.is_watched
    state.topic.leave("y")
    assert not state.topic.is_watched


async def test_who_comes_back_gets_the_gap(state: State, wires: Wires) -> None:
    await state.topic.join("x")
    for value in range(3):
        state.set("a", value)
        await wires.until("x", 2 + value)
    await state.topic.join("y", since=FIRST + 1)
    assert wires.to("y") == [
        ("delta", {"topic": "state", "seq": FIRST + 3, "items": [{"a": 1}, {"a": 2}], "dropped": 0})
    ]
    await state.topic.join("z", since=FIRST + 3)
    assert wires.to("z") == []


@pytest.mark.parametrize("since", [0, FIRST - 1, FIRST + 50])
async def test_where_the_gap_is_not_known_a_snapshot_comes(state: State, wires: Wires, since: int) -> None:
    """A number from before a restart, or one never given out."""
    await state.topic.join("x", since=since)
    assert [event for event, _ in wires.to("x")] == ["snapshot"]


async def test_a_burst_is_not_kept_for_who_comes_back(state: State, wires: Wires) -> None:
    """What is kept is counted in items: deltas of a busy service are large."""
    await state.topic.join("x")
    for number in range(2001):
        state.set(str(number), number)
    await wires.until("x", 2)
    state.set("a", 1)
    await wires.until("x", 3)
    await state.topic.join("before", since=FIRST)
    assert [event for event, _ in wires.to("before")] == ["snapshot"]
    await state.topic.join("after", since=FIRST + 1)
    assert [data["items"] for _, data in wires.to("after")] == [[{"a": 1}]]


async def test_a_slow_client_loses_items_and_is_told_how_many(lossy: State, wires: Wires) -> None:
    await lossy.topic.join("slow")
    await lossy.topic.join("quick")
    wires.waiting["slow"] = 1000
    for value in range(3):
        lossy.set("a", value)
        await wires.until("quick", 2 + value)
    assert len(wires.to("slow")) == 1
    wires.waiting["slow"] = 0
    lossy.set("a", 9)
    _, (event, delta) = await wires.until("slow", 2)
    assert (event, delta["items"], delta["dropped"]) == ("delta", [{"a": 9}], 3)
    lossy.set("a", 10)
    assert (await wires.until("slow", 3))[2][1]["dropped"] == 0


async def test_what_must_not_be_lost_comes_as_a_snapshot_once_the_client_has_caught_up(
    state: State, wires: Wires
) -> None:
    await state.topic.join("slow")
    await state.topic.join("quick")
    wires.waiting["slow"] = 1000
    state.set("a", 1)
    await wires.until("quick", 2)
    wires.waiting["slow"] = 0
    _, (event, snapshot) = await wires.until("slow", 2)
    assert (event, snapshot["data"], snapshot["seq"]) == ("snapshot", {"a": 1}, FIRST + 1)
    state.set("a", 2)
    assert (await wires.until("slow", 3))[2][0] == "delta"
